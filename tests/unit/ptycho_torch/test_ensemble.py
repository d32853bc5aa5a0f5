"""Mean and spread of several trainings, from the files that they leave."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.recon.inference import Reconstruction, save_reconstruction
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineSettings
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.study import ensemble
from ptycho_torch.study.describe import describe, find_runs
from ptycho_torch.study.runs_table import edited_cells, write_runs_csv
from trainrig.files import write_json
from trainrig.tracking.tables import Column, read_table, write_table

POSITIONS = np.array([[3.0, 4.0], [5.0, 7.0]])


def config_in(folder):
    return TrainingConfig(model=ModelConfig(), output_dir=folder, nepochs=2)


def leave_member(path, value):
    path.mkdir()
    obj = np.full((4, 4), value, np.complex64)
    whole = Reconstruction(obj, Grid(obj.shape, 0.0, 0.0), np.ones((4, 4), bool), 0.0)
    save_reconstruction(whole, path / "reconstruction.npz", POSITIONS)
    status = {"status": "complete", "epochs": 2, "refinement": iterations().describe()}
    write_json(path / "status.json", status)


def leave_identity(path, seed, **changes):
    identity = {"experiment": "ptychography", "scan_sha256": "1", "execution": {"seed": seed}}
    write_json(path / "config.json", identity | changes)


def iterations():
    return Method(RefineSettings(epochs=0))


def test_the_mean_has_the_positions_that_its_members_reconstructed(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "draw_pictures", lambda *_: None)
    for seed, value in enumerate((1.0, 3.0)):
        leave_member(tmp_path / f"seed_{seed}", value)
    assert ensemble.combine(tmp_path, ["seed_0", "seed_1"]) is not None
    found = read_arrays(tmp_path / "reconstruction.npz")
    np.testing.assert_allclose(found["object"], 2.0)
    np.testing.assert_array_equal(np.stack([found["xcoords"], found["ycoords"]], 1), POSITIONS)


def test_a_member_without_a_reconstruction_is_not_finished(tmp_path):
    path = tmp_path / "seed_0"
    leave_member(path, 1.0)
    assert ensemble.is_finished(path, config_in(path), iterations())
    (path / "reconstruction.npz").unlink()
    assert not ensemble.is_finished(path, config_in(path), iterations())


def test_several_devices_for_a_member_are_refused(tmp_path):
    execution = ExecutionConfig(devices=2, strategy="ddp")
    with pytest.raises(ValueError, match="--devices 2: a member of an ensemble is trained in one"):
        ensemble.members_of(config_in(tmp_path), execution, [0, 1])


def test_members_of_an_earlier_call_join_the_mean_and_others_do_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ensemble, "draw_pictures", lambda *_: None)
    for seed, value in enumerate((1.0, 3.0, 5.0, 100.0, 100.0)):
        leave_member(tmp_path / f"seed_{seed}", value)
        leave_identity(tmp_path / f"seed_{seed}", seed)
    leave_identity(tmp_path / "seed_3", 3, scan_sha256="2")
    status = {"status": "complete", "epochs": 9, "refinement": iterations().describe()}
    write_json(tmp_path / "seed_4/status.json", status)
    asked = {"seed_1", "seed_2"}
    assert ensemble.combine_folder(tmp_path, asked) == ["seed_1", "seed_2", "seed_0"]
    np.testing.assert_allclose(read_arrays(tmp_path / "reconstruction.npz")["object"], 3.0)
    said = capsys.readouterr().err
    assert "seed_3: left out: scan_sha256: 1 -> 2" in said
    assert "seed_4: left out: epochs: 2 -> 9" in said
    rows = read_table(write_runs_csv(tmp_path, asked), {"run": Column(str)})
    marks = {row["run"]: (row["in_grid"], row["differs"]) for row in rows}
    assert marks == {
        "seed_1": (1, None),
        "seed_2": (1, None),
        "seed_0": (0, None),
        "seed_3": (0, "scan_sha256: 1 -> 2"),
        "seed_4": (0, "epochs: 2 -> 9"),
    }
    table = tmp_path / "runs.csv"
    table.write_text(table.read_text().replace("seed_2,2,", "seed_2,7,"))
    warnings = describe(tmp_path, find_runs(tmp_path)).warnings
    assert warnings == ["runs.csv: seed of seed_2 is 7, its own files say 2"]


def test_a_copy_of_a_member_counts_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ensemble, "draw_pictures", lambda *_: None)
    for name, seed, value in (("seed_0", 0, 1.0), ("seed_1", 1, 3.0), ("a_copy", 0, 1.0)):
        leave_member(tmp_path / name, value)
        leave_identity(tmp_path / name, seed)
    asked = {"seed_0", "seed_1"}
    assert ensemble.combine_folder(tmp_path, asked) == ["seed_0", "seed_1"]
    np.testing.assert_allclose(read_arrays(tmp_path / "reconstruction.npz")["object"], 2.0)
    assert "a_copy: left out: the same run as seed_0" in capsys.readouterr().err
    rows = read_table(write_runs_csv(tmp_path, asked), {"run": Column(str)})
    found = {row["run"]: row["differs"] for row in rows}
    assert found == {"seed_0": None, "seed_1": None, "a_copy": "the same run as seed_0"}


def test_two_copies_alone_are_no_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "draw_pictures", lambda *_: None)
    for name in ("seed_0", "a_copy"):
        leave_member(tmp_path / name, 1.0)
        leave_identity(tmp_path / name, 0)
    assert ensemble.combine_folder(tmp_path, {"seed_0"}) == []


def test_an_edit_of_any_column_is_said(tmp_path):
    for seed in range(2):
        leave_member(tmp_path / f"seed_{seed}", 1.0)
        leave_identity(tmp_path / f"seed_{seed}", seed)
    table = write_runs_csv(tmp_path, {"seed_0"})
    (first, *_) = read_table(table, {"run": Column(str)})
    for column in first.keys() - {"run", "in_grid"}:
        rows = read_table(write_runs_csv(tmp_path, {"seed_0"}), {"run": Column(str)})
        write_table([{**rows[0], column: 7}, *rows[1:]], table, list(first))
        (line,) = edited_cells(tmp_path)
        assert line.startswith(f"runs.csv: {column} of seed_0 is 7, its own files say "), line

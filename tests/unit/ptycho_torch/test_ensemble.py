"""Mean and spread of several trainings, from the files that they leave."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightning", reason="needs the extra 'ptycho'")

from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.recon.inference import Reconstruction, save_reconstruction
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineSettings
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.study import ensemble
from trainrig.files import write_json

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

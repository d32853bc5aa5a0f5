"""The ptychography scripts through ``main([...])`` on a toy scan, and their one-line errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import convert_ptycho
import evaluate_ptycho
import infer_ptycho
import numpy as np
import pytest
import simulate_ptycho
import torch
import train_ptycho
from PIL import Image

from kills import fingerprint
from ptycho_torch.study.archive import redraw
from trainrig import watch
from trainrig.files import write_json
from trainrig.run_status import read_status
from trainrig.tracking.progress import read_progress
from trainrig.tracking.tables import read_table

SCRIPTS = ("simulate", "train", "ensemble", "infer", "evaluate", "convert")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    assert simulate_ptycho.main([str(path), "--rows", "7", "--photons", "2e5"]) == 0
    return path


@pytest.fixture(scope="module")
def run(scan, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    code = train_ptycho.main(
        ["--train_data_file", str(scan), "--output_dir", str(out), "--nepochs", "1",
         "--n_filters_scale", "1", "--accelerator", "cpu", "--preview-every-epochs", "1", "--quiet",
         "--log-patch-stats"]
    )  # fmt: skip
    assert code == 0
    return out


def test_training_leaves_its_files(run):
    for name in (
        "wts.h5.zip", "config.yaml", "reconstruction.npz", "reconstructed_amplitude.png",
        "reconstructed_phase.png", "checkpoints/last.ckpt", "logs/metrics.csv",
        "previews/latest.png", "logs/progress.txt", ".lock",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    (losses,) = read_table(run / "logs/metrics.csv", {})
    assert losses["epoch"] == 1
    logged = {row["split"]: row["loss"] for row in read_progress(run / "logs/progress.txt")}
    assert logged == {"train": losses["train_loss"], "val": losses["val_loss"]}
    with np.load(run / "reconstruction.npz") as found:
        reached = found["object"][found["covered"]]
    assert np.isfinite(reached).all()
    assert np.abs(reached).std() > 0
    with Image.open(run / "previews/latest.png") as latest:
        first = Image.open(run / "previews/epoch_0001.png")
        assert np.array_equal(np.asarray(latest), np.asarray(first))


def test_network_refined_and_scored(run, scan, tmp_path, capsys):
    arguments = ["--model_path", str(run), "--test_data", str(scan), "--output_dir", str(tmp_path)]
    assert infer_ptycho.main([*arguments, "--refine", "15", "--accelerator", "cpu"]) == 0
    assert evaluate_ptycho.main([str(tmp_path / "reconstruction.npz"), "--truth", str(scan)]) == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert scores["ssim_phase"] > 0.8
    assert abs(scores["shift_x_px"]) < 1
    assert abs(scores["shift_y_px"]) < 1
    with np.load(tmp_path / "evaluation.npz") as shown:
        error = np.abs(shown["amplitude"].astype(float) - shown["true_amplitude"]).mean()
    assert error == pytest.approx(scores["mae_amp"], rel=0.02)  # in half precision
    rings = read_table(tmp_path / "evaluation.csv", {})
    below = next((row["ring"] for row in rings if row["frc_complex"] < row["half_bit"]), len(rings))
    assert abs(below - scores["frc_half_bit_complex"]) <= 1
    drawn = (tmp_path / "evaluation.png").read_bytes()
    assert redraw(tmp_path)[0] == tmp_path / "evaluation.png"
    assert (tmp_path / "evaluation.png").read_bytes() == drawn
    assert "ssim_amp" in capsys.readouterr().out


def test_stream(run, scan, tmp_path):
    base = ["--model_path", str(run), "--test_data", str(scan), "--accelerator", "cpu", "--quiet"]
    assert infer_ptycho.main([*base, "--output_dir", str(tmp_path), "--stream", "10"]) == 0
    with (
        np.load(tmp_path / "reconstruction.npz") as found,
        np.load(run / "reconstruction.npz") as whole,
    ):
        assert np.array_equal(found["covered"], whole["covered"])
        assert np.allclose(found["object"], whole["object"], rtol=1e-4, atol=1e-5)


@pytest.fixture
def without_pictures(monkeypatch):
    """Leave out the figures, which take longer than the rest."""
    for name in ("draw_pictures", "draw_refinement"):
        monkeypatch.setattr(f"ptycho_torch.train.report.{name}", lambda *_: None)
    for module in ("study.repetitions", "study.ensemble"):
        monkeypatch.setattr(f"ptycho_torch.{module}.draw_pictures", lambda *_: None)


@pytest.mark.usefixtures("without_pictures")
def test_repetitions_on_a_cluster_are_the_ones_here(run, scan, tmp_path, cluster, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    base = ["--model_path", str(run), "--test_data", str(scan), "--accelerator", "cpu", "--quiet"]
    base += ["--refine", "2", "--learn-probe", "--uncertainty", "2", "--output_dir"]
    assert infer_ptycho.main([*base, str(here), "--dry-run"]) == 0
    assert "runs: 2, finished before: 0" in capsys.readouterr().out
    assert not here.exists()
    assert infer_ptycho.main([*base, str(here), "--jobs", "1"]) == 0
    assert infer_ptycho.main([*base, str(there), "--launcher", "slurm"]) == 0
    assert cluster.names == ["seed_0", "seed_1"]
    with (
        np.load(here / "reconstruction.npz") as one,
        np.load(there / "reconstruction.npz") as other,
    ):
        assert one["uncertainty"].max() > 0
        np.testing.assert_array_equal(one["uncertainty"], other["uncertainty"])
    table = (there / "repetitions" / "runs.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in table[1:]] == [
        ["seed_0", "0", "complete", "2"],
        ["seed_1", "1", "complete", "2"],
    ]
    assert infer_ptycho.main([*base, str(there), "--launcher", "slurm"]) == 0
    assert len(cluster.names) == 2  # finished before
    before = (here / "reconstruction.npz").read_bytes()
    capsys.readouterr()
    assert infer_ptycho.main([*base, str(here), "--refine", "3", "--jobs", "1"]) == 1
    assert "refinement.epochs: 2 -> 3" in capsys.readouterr().err
    assert infer_ptycho.main([*base, str(here), "--seed", "1"]) == 1  # of another object
    assert "object_seed: 0 -> 1" in capsys.readouterr().err
    assert (here / "reconstruction.npz").read_bytes() == before
    shutil.rmtree(here)
    assert infer_ptycho.main([*base[:-3], "--output_dir", str(here), "--launcher", "slurm"]) == 1
    assert "--uncertainty N" in capsys.readouterr().err


ENSEMBLE = "--n_filters_scale 1 --accelerator cpu --refine 2 --quiet --batch_size 8 --n_groups 16"


@pytest.mark.usefixtures("without_pictures")
def test_an_ensemble_on_a_cluster_is_its_trainings(scan, tmp_path, cluster, capsys, monkeypatch):
    import ensemble_ptycho

    one, several = tmp_path / "one", tmp_path / "several"
    words = [*ENSEMBLE.split(), "--train_data_file", str(scan), "--nepochs", "1", "--output_dir"]
    ensemble = [*words, str(several), "--seeds", "3", "4", "--launcher", "slurm"]
    assert ensemble_ptycho.main([*ensemble, "--dry-run"]) == 0
    assert "runs: 2, finished before: 0" in capsys.readouterr().out
    assert not several.exists()
    assert ensemble_ptycho.main(ensemble) == 0
    assert cluster.names == ["seed_3", "seed_4"]
    assert train_ptycho.main([*words, str(one), "--seed", "4"]) == 0
    assert fingerprint(one) == fingerprint(several / "seed_4")
    objects = []
    for seed in (3, 4):
        with np.load(several / f"seed_{seed}" / "reconstruction.npz") as found:
            objects.append(found["object"])
            covered = found["covered"]
    turn = np.exp(1j * np.angle(np.vdot(objects[1][covered], objects[0][covered])))
    spread = np.abs(objects[0] - turn * objects[1]) / np.sqrt(2)  # of two values
    with np.load(several / "reconstruction.npz") as found:
        np.testing.assert_allclose(found["uncertainty"], spread, rtol=1e-4, atol=1e-6)
    lines = watch.look(several)
    assert [(line.name, line.status, line.done, line.total) for line in lines] == [
        ("seed_3", "complete", 1, 1),
        ("seed_4", "complete", 1, 1),
    ]
    assert "seed_4" in (several / "report.html").read_text()
    assert ensemble_ptycho.main([*ensemble, "--refine", "1"]) == 0  # trained, but not so refined
    assert len(cluster.names) == 4
    capsys.readouterr()
    assert ensemble_ptycho.main([*ensemble, "--batch_size", "4"]) == 1
    assert "training.batch_size: 8 -> 4" in capsys.readouterr().err
    assert ensemble_ptycho.main([*words, str(several), "--seeds", "3", "3"]) == 1
    assert "--seeds 3 3: give two or more different values" in capsys.readouterr().err
    monkeypatch.chdir(scan.parent)  # where the scan is spelled otherwise
    member = [*ENSEMBLE.split(), "--output_dir", str(several / "seed_4"), "--seed", "4", "--resume"]
    member += ["--threads", "1", "--train_data_file", scan.name, "--nepochs"]
    assert train_ptycho.main([*member, "2"]) == 0
    assert train_ptycho.main([*member, "1"]) == 1
    assert "a run of 2 (training.epochs), which cannot become 1" in capsys.readouterr().err
    assert read_status(several / "seed_4")["status"] == "complete"
    assert (several / "reconstruction.npz").exists()
    write_json(several / "seed_4" / "status.json", {"status": "diverged"})
    assert ensemble_ptycho.main([*ensemble, "--nepochs", "2"]) == 0  # the other becomes longer
    assert read_status(several / "seed_3")["epoch"] == 2
    assert not (several / "reconstruction.npz").exists()  # of one member there is no mean


def test_iterations_alone_need_no_network(scan, tmp_path):
    arguments = ["--test_data", str(scan), "--output_dir", str(tmp_path), "--quiet"]
    more = ["--refine", "2", "--learn-probe", "--half-data", "--preview-every-epochs", "2"]
    assert infer_ptycho.main([*arguments, *more]) == 0
    assert (tmp_path / "previews" / "refined_0002.png").stat().st_size > 10_000
    refinement = (tmp_path / "refinement.png").read_bytes()
    assert tmp_path / "refinement.png" in redraw(tmp_path)
    assert (tmp_path / "refinement.png").read_bytes() == refinement
    found = json.loads((tmp_path / "half_data.json").read_text())
    assert 1 <= found["half_period_px"] < found["side_px"]
    curve = read_table(tmp_path / "half_data.csv", {})
    below = next((row["ring"] for row in curve if row["frc"] < row["half_bit"]), len(curve))
    assert abs(below - found["frc_half_bit_ring"]) <= 1
    halves = [str(tmp_path / f"half_{k}.npz") for k in (1, 2)]
    (tmp_path / "half_data.json").unlink()
    assert evaluate_ptycho.main([halves[0], "--against", halves[1]]) == 0
    assert json.loads((tmp_path / "half_data.json").read_text()) == found
    assert infer_ptycho.main(arguments) == 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_simulated_errors_are_reported(tmp_path):
    scan, out = tmp_path / "wrong.npz", tmp_path / "out"
    flags = ["--rows", "7", "--position-error-px", "1", "--modes", "2", "--start-modes", "1"]
    assert simulate_ptycho.main([str(scan), *flags]) == 0
    arguments = ["--test_data", str(scan), "--output_dir", str(out), "--quiet", "--refine", "8"]
    more = ["--learn-positions", "--uncertainty", "2", "--jobs", "1", "--comparison_plot"]
    assert infer_ptycho.main([*arguments, *more]) == 0
    assert torch.get_num_threads() == 2  # repetitions in turn leave it as it was
    scores = json.loads((out / "metrics.json").read_text())
    assert scores["position_error_after_px"] < scores["position_error_before_px"]
    assert -1 <= scores["uncertainty_rank_correlation"] <= 1
    assert (out / "uncertainty.png").stat().st_size > 10_000


def test_flag_over_yaml_over_default(scan, tmp_path):
    from ptycho_torch.study.cli import resolve_training

    (tmp_path / "c.yaml").write_text("model: {gridsize: 2}\ntraining: {batch_size: 4, nepochs: 9}")
    flags = ["--config", str(tmp_path / "c.yaml"), "--nepochs", "3", "--no-probe_big"]
    training, execution = resolve_training(train_ptycho.make_parser().parse_args(flags), 64)
    assert (training.model.gridsize, training.batch_size, training.nepochs) == (2, 4, 3)
    assert training.model.probe_big is False
    assert execution.logger_backend == "csv"
    (tmp_path / "c.yaml").write_text("sede: 3")
    with pytest.raises(ValueError, match="did you mean 'seed'"):
        resolve_training(train_ptycho.make_parser().parse_args(flags), 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_data_file", "absent.npz"], "no such file"),
        ([], "--train_data_file: missing"),
        (["--logger", "mlflow"], "csv, tensorboard, trackio, none"),
        (["--batch_size", "12"], "power of two"),
        (["--gridsize", "3", "--neighbor_count", "4"], "neighbours are fewer"),
        (["--N", "100"], "64, 128, 256"),
    ],
)
def test_mistakes_are_one_line(arguments, message, scan, tmp_path, capsys):
    if "absent.npz" not in arguments and arguments:
        arguments = ["--train_data_file", str(scan), *arguments]
    out = ["--output_dir", str(tmp_path / "x"), "--nepochs", "1", "--accelerator", "cpu", "--quiet"]
    assert train_ptycho.main([*arguments, *out]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_inference_flag_over_yaml_over_default(run, scan, tmp_path):
    from ptycho_torch.study.inference_cli import add_inference_flags, parse_inference_args
    from trainrig.cli import Parser

    file = tmp_path / "inference.yaml"
    file.write_text(f"test_data: {scan}\nmiddle_trim: 10\nrefine: 5\nquiet: true\n")

    def read(*words):
        parser = Parser()
        add_inference_flags(parser)
        return parse_inference_args(parser, ["--config", str(file), *words])

    args = read("--refine", "7")
    assert (args.test_data, args.middle_trim, args.refine, args.quiet) == (scan, 10, 7, True)
    assert (args.accelerator, args.seed) == ("auto", 0)
    for line, message in (("refin: 1", "did you mean 'refine'"), ("quiet: 3", "true or false")):
        file.write_text(line)
        with pytest.raises(ValueError, match=message):
            read("--test_data", "x")


def test_the_network_can_be_looked_into(run, scan, tmp_path):
    dump = tmp_path / "dump.npz"
    words = ["--model_path", str(run), "--test_data", str(scan), "--output_dir", str(tmp_path)]
    assert infer_ptycho.main([*words, "--debug_dump", str(dump), "--quiet"]) == 0
    with np.load(dump) as found, np.load(scan) as raw:
        assert found["patches"].shape == (16, 1, 64, 64)
        first, stored = found["inputs"][0, 0], raw["diff3d"][found["frames"][0, 0]]
        np.testing.assert_allclose(first / first.sum(), stored / stored.sum(), rtol=1e-5)
        np.testing.assert_array_equal(found["coords"][3, 0], [raw["xcoords"][3], raw["ycoords"][3]])


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_imports_no_torch(name, repo_root):
    code = (
        f"import sys; sys.path.insert(0, 'scripts'); import {name}_ptycho as s\n"
        "try: s.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'h5py' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Example:" in done.stdout


def test_tike_layout_with_negative_positions(tmp_path):
    rng = np.random.default_rng(0)
    probe = np.zeros((1, 1, 1, 1, 64, 64), np.complex64)
    probe[..., 20:44, 20:44] = 1
    scan = (rng.uniform(-80, -20, (1, 9, 2))).astype(np.float32)
    frames = rng.poisson(3, (1, 9, 64, 64)).astype(np.float32)
    frames[0, :, 0, 0] = 500  # zero frequency
    np.savez(tmp_path / "t.npz", data=frames, scan=scan, probe=probe)
    assert convert_ptycho.main([str(tmp_path / "t.npz"), str(tmp_path / "c.npz")]) == 0
    with np.load(tmp_path / "c.npz") as found:
        np.testing.assert_allclose(found["diff3d"][:, 32, 32] ** 2, 500, rtol=1e-5)
        step = np.diff(scan[0], axis=0)
        np.testing.assert_allclose(np.diff(found["xcoords"]), step[:, 1], atol=1e-4)
        np.testing.assert_allclose(np.diff(found["ycoords"]), step[:, 0], atol=1e-4)
    assert (
        convert_ptycho.main([str(tmp_path / "c.npz"), str(tmp_path / "p"), "--to-ptychodus"]) == 0
    )
    assert convert_ptycho.main([str(tmp_path / "p"), str(tmp_path / "d.npz")]) == 0
    with np.load(tmp_path / "d.npz") as again, np.load(tmp_path / "c.npz") as found:
        np.testing.assert_allclose(again["diff3d"], found["diff3d"], atol=1e-4)
        shift = again["xcoords"] - found["xcoords"]
        np.testing.assert_allclose(shift, shift[0], atol=1e-9)


def write_cxi(path, step_m, distance_m=2.0):
    import h5py

    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) * step_m
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.random.default_rng(0).poisson(5, (16, 64, 64)).astype(np.int32)
        detector["distance"], detector["x_pixel_size"] = distance_m, 75e-6
        file["entry_1/instrument_1/source_1/energy"] = 8000 * 1.602176634e-19
        file["entry_1/sample_1/geometry_1/translation"] = np.pad(grid, ((0, 0), (0, 1)))


def test_cxi_far_field_is_read_and_near_field_refused(tmp_path, capsys):
    pytest.importorskip("h5py")
    write_cxi(tmp_path / "far.cxi", 400e-9)
    assert convert_ptycho.main([str(tmp_path / "far.cxi"), str(tmp_path / "far.npz")]) == 0
    with np.load(tmp_path / "far.npz") as found:
        assert np.ptp(found["xcoords"]) == pytest.approx(3 * 400e-9 / 64.5751e-9, rel=1e-4)
    write_cxi(tmp_path / "near.cxi", 3e-6)
    assert convert_ptycho.main([str(tmp_path / "near.cxi"), str(tmp_path / "near.npz")]) == 1
    assert "Fresnel number" in capsys.readouterr().err


def test_recorded_near_field_file_is_refused(data_dir, tmp_path, capsys):
    source = data_dir / "ptycho" / "PETRAIII_P25_Near_Field_Ptycho.cxi"
    if not source.is_file():
        pytest.skip("needs ptycho/PETRAIII_P25_Near_Field_Ptycho.cxi")
    assert convert_ptycho.main([str(source), str(tmp_path / "x.npz")]) == 1
    assert "Fresnel number" in capsys.readouterr().err


def test_a_reconstruction_becomes_the_labels_of_ptychodus(run, scan, tmp_path):
    from ptycho_torch.raw_data import RawDataTorch

    known, folder = run / "reconstruction.npz", tmp_path / "in"
    words = [str(scan), str(folder), "--to-ptychodus"]
    assert convert_ptycho.main(words) == 0
    assert RawDataTorch.from_file(folder).objectGuess is None  # a flat object is no label
    assert convert_ptycho.main([*words, "--object", str(known)]) == 0
    pair, given = RawDataTorch.from_file(folder), RawDataTorch.from_file(scan)
    with np.load(known) as archive:
        obj, origin = archive["object"], archive["origin_xy"]
    np.testing.assert_array_equal(pair.objectGuess, obj)
    np.testing.assert_allclose(pair.coords, given.coords - origin, atol=1e-9)


def test_a_large_set_is_staged_once(scan, tmp_path):
    from ptycho_torch.data.staging import MARKER, open_staged, stage

    folder = stage([scan, scan], tmp_path)
    stamp = (folder / "frames.npy").stat().st_mtime_ns
    assert stage([scan, scan], tmp_path) == folder
    assert (folder / "frames.npy").stat().st_mtime_ns == stamp
    assert stage([scan, scan], tmp_path, {"gridsize": 2}) != folder
    with pytest.raises(ValueError, match="sources: none given"):
        stage([], tmp_path)
    both = open_staged(folder)
    assert len(both) == 98
    assert isinstance(both.diff3d, np.memmap)
    (folder / MARKER).unlink()
    with pytest.raises(ValueError, match="not a finished staged set"):
        open_staged(folder)
    assert not list(tmp_path.glob("*.partial"))


def test_other_packages_say_nothing_but_warnings():
    code = (
        "import logging; from ptycho_torch.study.cli import set_log_level\n"
        "set_log_level(quiet=False)\n"
        "for name in ('fontTools.subset', 'ptycho_torch.recon.refine', 'trainrig.device'):\n"
        "    logging.getLogger(name).info(name)\n"
        "    logging.getLogger(name).warning('!')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["!", "ptycho_torch.recon.refine", "!", "trainrig.device", "!"]

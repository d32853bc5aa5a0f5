"""Train, kill, resume, save, load, stream and refine: the workflow on a toy scan."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch

from ptycho_torch.config import params
from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.lightning_utils import find_best_checkpoint
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import open_stream, reconstruct
from ptycho_torch.recon.persistence import load_model, save_bundle
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineSettings, refine
from ptycho_torch.train.workflows import (
    build_model,
    load_inference_bundle,
    run_cdi_example_with_backend,
)
from trainrig.errors import CheckpointError
from trainrig.files import read_json, write_json


def config_for(folder, **changes):
    model = {"N": 64, "n_filters_scale": 1, "gridsize": 1}
    model |= {k: changes.pop(k) for k in list(changes) if k in ModelConfig.__dataclass_fields__}
    settings = {"nepochs": 2, "batch_size": 8, "n_groups": 16, "backend": "pytorch", **changes}
    return TrainingConfig(model=ModelConfig(**model), output_dir=folder, **settings)


def execution(**changes):
    return ExecutionConfig(accelerator="cpu", **changes)


@pytest.fixture(scope="module")
def scan(toy_arrays):
    rows = np.arange(16)
    part = {k: v[rows] if len(v) == 49 else v for k, v in toy_arrays.items()}
    return RawDataTorch.from_arrays(part, "toy")


@pytest.fixture(scope="module")
def trained(scan, tmp_path_factory):
    """One training of two epochs with its results."""
    folder = tmp_path_factory.mktemp("run")
    results = run_cdi_example_with_backend(
        scan, None, config_for(folder), do_stitching=True, execution_config=execution()
    )
    return folder, results


def test_outputs_and_results(trained):
    folder, (amplitude, phase, results) = trained
    assert amplitude.shape == phase.shape == results["obj_tensor_full"].shape
    assert results["backend"] == "pytorch"
    assert len(results["history"]["train_loss"]) == len(results["history"]["val_loss"]) == 2
    assert results["history"]["train_loss"][1] < results["history"]["train_loss"][0]
    assert results["train_container"].X.shape[1:] == (64, 64, 1)
    assert params.get("N") == 64
    for name in ("wts.h5.zip", "logs/metrics.csv", "checkpoints/last.ckpt"):
        assert (folder / name).is_file()
    assert find_best_checkpoint(folder).name.startswith("best")


def test_bundle_gives_the_same_object_bitwise(trained, scan):
    folder, (_, _, results) = trained
    model, stored = load_inference_bundle(folder)
    model.inference_config.middle_trim = 20
    assert stored["intensity_scale"] == pytest.approx(results["intensity_scale"])
    np.testing.assert_array_equal(reconstruct(model, scan).object, results["obj_tensor_full"])


def test_a_checkpoint_holds_only_tensors_and_plain_values(trained):
    folder, (_, _, results) = trained
    model = PtychoPINN_Lightning.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    want = results["models"]["autoencoder"].state_dict()
    assert all(torch.equal(value, want[key]) for key, value in model.state_dict().items())


def test_twice_is_identical_and_resuming_changes_nothing(trained, scan, tmp_path):
    folder, _ = trained
    for name in ("again", "killed"):
        config = config_for(tmp_path / name)
        if name == "killed":
            config.nepochs = 1
            run_cdi_example_with_backend(scan, None, config, execution_config=execution())
            config.nepochs = 2
        run_cdi_example_with_backend(
            scan,
            None,
            config,
            do_stitching=True,  # as in ``trained``: the stitched part is stored with the model
            execution_config=execution(),
            overrides={"resume": True},
        )
    bundles = [(f / "wts.h5.zip").read_bytes() for f in (folder, tmp_path / "again")]
    assert bundles[0] == bundles[1]
    metrics = [(f / "logs/metrics.csv").read_bytes() for f in (folder, tmp_path / "again")]
    assert metrics[0] == metrics[1]
    first, second = (load_model(f) for f in (folder, tmp_path / "killed"))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_another_configuration_or_scan_is_not_resumed(trained, scan, tmp_path, monkeypatch):
    monkeypatch.delenv("TRAINRIG_FORCE_RESUME", raising=False)
    shutil.copytree(trained[0], tmp_path / "run")
    config = config_for(tmp_path / "run")
    options = {"execution_config": execution(), "overrides": {"resume": True}}
    config.batch_size = 16
    with pytest.raises(ValueError, match=r"training.batch_size: .*--overwrite"):
        run_cdi_example_with_backend(scan, None, config, **options)
    config.batch_size = 8
    other = dataclasses.replace(scan, probeGuess=2 * scan.probeGuess)
    with pytest.raises(ValueError, match="scan_sha256"):
        run_cdi_example_with_backend(other, None, config, **options)
    config.nepochs = 3  # a finished run is not continued otherwise
    environment = read_json(tmp_path / "run/environment.json")
    write_json(tmp_path / "run/environment.json", environment | {"source_sha256": "older"})
    with pytest.raises(ValueError, match=r"other conditions .source_sha256: older -> "):
        run_cdi_example_with_backend(scan, None, config, **options)


def test_streaming_equals_the_whole_scan(trained, scan):
    model = load_model(trained[0])
    stream = open_stream(model, scan)
    for start in range(0, len(scan), 5):
        stream.add(scan.diff3d[start : start + 5], scan.coords[start : start + 5])
    np.testing.assert_allclose(stream.object(), reconstruct(model, scan).object, atol=2e-5)
    assert stream.patterns == len(scan)
    assert stream.patterns_per_s > 0


def edited(source, target, change):
    """A copy of a bundle whose members went through ``change(name, data)``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target / "wts.h5.zip", "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda n, d: d[:-3] if n == "autoencoder/model.pth" else d, CheckpointError, "digest"),
        (lambda n, d: None if n == "manifest.json" else d, CheckpointError, "no manifest"),
        (
            lambda n, d: d.replace(b'"pytorch"', b'"tensorflow"') if n == "manifest.json" else d,
            ValueError,
            "tensorflow backend, this is the pytorch",
        ),
        (
            lambda n, d: (
                json.dumps({**json.loads(d), "models": ["autoencoder"]}).encode()
                if n == "manifest.json"
                else d
            ),
            KeyError,
            "diffraction_to_obj is missing",
        ),
    ],
)
def test_tampered_and_foreign_archives_are_refused(trained, tmp_path, change, error, message):
    edited(trained[0] / "wts.h5.zip", tmp_path, change)
    with pytest.raises(error, match=message):
        load_inference_bundle(tmp_path)


def test_pickled_archives_are_refused_unless_trusted(tmp_path):
    with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
        archive.writestr("manifest.dill", pickle.dumps({"models": [], "backend": "pytorch"}))
    with pytest.raises(CheckpointError, match="pickled manifest"):
        load_inference_bundle(tmp_path)
    with pytest.raises(KeyError, match="autoencoder is missing"):
        load_inference_bundle(tmp_path, trust_pickle=True)


def test_a_tensorflow_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
        archive.writestr("diffraction_to_obj/model.keras", b"")
    with pytest.raises(ValueError, match="written by the tensorflow backend"):
        load_inference_bundle(tmp_path)


def test_missing_bundles_and_pickled_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wts\.h5\.zip"):
        load_inference_bundle(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        load_inference_bundle(tmp_path / "absent")
    torch.save({"x": ExecutionConfig()}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match="refused"):
        PtychoPINN_Lightning.load_from_checkpoint(tmp_path / "bad.ckpt")


def test_weights_of_another_architecture_are_named(trained, tmp_path):
    folder = trained[0]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["model_config"]["probe_big"] = False
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"surplus net\.generator.amplitude\.border_convs"):
        PtychoPINN_Lightning.load_from_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"PK\x03\x04", b"\x80\x02K\x03."])
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    for read, where in (
        (PtychoPINN_Lightning.load_from_checkpoint, path),
        (find_best_checkpoint, tmp_path),
    ):
        with pytest.raises(CheckpointError, match=r"last\.ckpt: ") as caught:
            read(where)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gridsize", [2, 3])
def test_grouped_models_train_and_scale_and_probe_really_move(gridsize, scan, tmp_path):
    config = config_for(
        tmp_path, gridsize=gridsize, n_groups=8, batch_size=4, neighbor_count=gridsize**2,
        nepochs=1, probe_trainable=True, intensity_scale_trainable=True,
    )  # fmt: skip
    before = build_model(config, execution())
    run_cdi_example_with_backend(scan, None, config, execution_config=execution())
    after = load_model(tmp_path)
    start = torch.log(after.intensity_scale).float()
    assert abs(float(after.net.log_scale.detach() - start)) > 1e-5
    norm = torch.from_numpy(scan.probe_modes) / after.probe_norm
    assert not torch.allclose(after.net.probe, norm.to(torch.complex64), atol=1e-7)
    names = {n for n, p in before.named_parameters() if p.requires_grad}
    assert {"net.log_scale", "net.probe_parts"} <= names
    with pytest.raises(ValueError, match="--stream"):
        Method(RefineSettings(epochs=0), model=after, stream=4).network(scan)


def test_supervised_training_needs_labels(scan, tmp_path):
    from dataclasses import replace

    config = config_for(tmp_path, model_type="supervised", nepochs=1)
    run_cdi_example_with_backend(scan, None, config, execution_config=execution())
    with pytest.raises(ValueError, match="supervised training needs labels"):
        run_cdi_example_with_backend(
            replace(scan, objectGuess=None), None, config, execution_config=execution()
        )


def test_frames_of_another_size_are_refused(scan, tmp_path):
    with pytest.raises(ValueError, match="64 pixels for a network of N = 128"):
        run_cdi_example_with_backend(
            scan, None, config_for(tmp_path, N=128), execution_config=execution()
        )


def test_backends(scan, tmp_path):
    config = config_for(tmp_path)
    config.backend = "tensorflow"
    with pytest.raises(RuntimeError, match="'ptycho' is not installed"):
        run_cdi_example_with_backend(scan, None, config)
    config.backend = "jax"
    with pytest.raises(ValueError, match="choose one of"):
        run_cdi_example_with_backend(scan, None, config)
    config.backend = "pytorch"
    with pytest.raises(TypeError, match="not a scan"):
        run_cdi_example_with_backend([1], None, config)


def test_loggers_are_a_closed_list():
    with pytest.raises(ValueError, match="csv, tensorboard, trackio, none"):
        ExecutionConfig(logger_backend="mlflow")


def test_refinement_finds_the_object_and_repeats_itself(toy_arrays):
    scan = RawDataTorch.from_arrays(
        {k: v for k, v in toy_arrays.items() if k != "objectGuess"}, "toy"
    )
    grid = Grid.of(scan.coords, 64, toy_arrays["objectGuess"].shape)
    runs = [list(refine(scan, RefineSettings(epochs=12), grid=grid))[-1] for _ in range(2)]
    assert torch.equal(runs[0].object, runs[1].object)
    assert runs[0].losses[-1] < 0.5 * runs[0].losses[0]
    centre = (slice(45, 75), slice(45, 75))
    found, truth = runs[0].numpy()[centre], toy_arrays["objectGuess"][centre]
    found = found * np.exp(-1j * np.angle((found * truth.conj()).sum()))
    assert np.abs(found - truth).mean() < 0.06


def test_refinement_with_probe_positions_and_background(toy_arrays):
    scan = RawDataTorch.from_arrays(
        {k: v for k, v in toy_arrays.items() if k != "objectGuess"}, "toy"
    )
    settings = RefineSettings(
        epochs=5, learn_probe=True, learn_positions=True, learn_background=True, loss="poisson"
    )
    state = list(refine(scan, settings))[-1]
    assert state.losses[-1] < state.losses[0]
    assert float(state.shifts_xy.abs().max()) > 0
    assert float(state.background.min()) >= 0


def test_positions_outside_a_known_object_are_named():
    coords = np.array([[10.0, 10.0], [300.0, 20.0]])
    with pytest.raises(ValueError, match=r"row 1 at \(x, y\) = \(300.0, 20.0\)"):
        Grid.of(coords, 64, (128, 128))


def test_the_saved_bundle_does_not_depend_on_its_folder(trained, tmp_path):
    model = load_model(trained[0])
    first, second = save_bundle(model, tmp_path / "a"), save_bundle(model, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    shutil.rmtree(tmp_path / "a")

"""Every reader, given damaged files: it reads them, or says in one line which file is wrong.

Hypothesis damages a valid file: bytes replaced, cut, doubled, or another file's head in front. A
reader may still accept it; otherwise the error is one that scripts turn into one line, it names the
file, and nothing was written, nor run out of a pickle.
"""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepobs.analyzer.results import read_run
from optimizer_quality.config import CifarConfig
from ptycho_torch.data.product_files import write_pair
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.persistence import load_model
from pytorch_port.config.files import load_icl_config
from trainrig.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainrig.cli import USER_ERRORS, describe
from trainrig.config import load_config
from trainrig.data.cifar10 import read_cifar10
from trainrig.data.mnist import read_idx
from trainrig.files import read_json
from trainrig.runs import read_status
from trainrig.tracking.progress import read_progress
from trainrig.tracking.tables import Column, read_table

EXAMPLES = 60


@st.composite
def damage(draw):
    """Return a function: content -> damaged content."""
    kind = draw(st.sampled_from(["replace", "replace", "cut", "double", "head", "empty"]))
    share = draw(st.floats(0, 1, exclude_max=True))
    junk = draw(st.binary(min_size=1, max_size=24))

    def apply(content: bytes) -> bytes:
        at = int(share * len(content))
        if kind == "replace":
            return content[:at] + junk + content[at + len(junk) :]
        return {
            "cut": content[:at],
            "double": content[:at] + content[at // 2 :],
            "head": junk + content[len(junk) :],
            "empty": b"",
        }[kind]

    return apply


def scan_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "diff3d": rng.random((4, 64, 64), dtype=np.float32) + 0.5,
        "xcoords": np.arange(4.0) * 8 + 40,
        "ycoords": np.arange(4.0) % 2 * 8 + 40,
        "probeGuess": np.ones((64, 64), np.complex64),
    }


def write_cxi(path):
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.ones((4, 64, 64), np.int32)
        detector["distance"] = 1.0
        detector["x_pixel_size"] = detector["y_pixel_size"] = 75e-6
        file["entry_1/instrument_1/source_1/energy"] = 8000 * 1.602e-19
        file["entry_1/sample_1/geometry_1/translation"] = np.arange(12.0).reshape(4, 3) * 1e-7


def write_cifar(path):
    batch = {"labels": [0, 1], "data": np.zeros((2, 3072), np.uint8)}
    path.write_bytes(pickle.dumps(batch, protocol=2))


def write_bundle(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"version": "2.0-pytorch", "models": []}))


RESULT = {
    "train_losses": [1.0, 0.5],
    "test_losses": [1.0, 0.5],
    "testproblem": "quadratic_deep",
    "optimizer_hyperparams": {},
    "batch_size": 128,
    "num_epochs": 1,
    "random_seed": 42,
    "learning_rate": 0.1,
}
#: reader -> name of the file, how to make a valid one, how to read it
READERS = {
    "YAML configuration": (
        "config.yaml",
        lambda path: path.write_text("seed: 1\noptimizer:\n  type: sgd\n  lr: 0.1\n"),
        lambda path: load_config(path, CifarConfig),
    ),
    "Python configuration": (
        "config.py",
        lambda path: path.write_text("def get_config():\n    return {'seed': 1}\n"),
        load_icl_config,
    ),
    "JSON": ("status.json", lambda path: path.write_text('{"status": "complete"}'), read_json),
    "progress.txt": (
        "progress.txt",
        lambda path: path.write_text("step=1 loss=0.5\nstep=2 loss=0.4\n"),
        read_progress,
    ),
    "CSV table": (
        "runs.csv",
        lambda path: path.write_text("step,loss\n1,0.5\n2,0.25\n"),
        lambda path: read_table(path, {"step": Column(int), "loss": Column(float)}),
    ),
    "IDX": (
        "labels-idx1-ubyte",
        lambda path: path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3])),
        read_idx,
    ),
    "gzipped IDX": (
        "labels-idx1-ubyte.gz",
        lambda path: path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))),
        read_idx,
    ),
    "pickled CIFAR": ("test_batch", write_cifar, lambda path: read_cifar10(path.parent, "test")),
    "DeepOBS result": (
        "random_seed__42.json",
        lambda path: path.write_text(json.dumps(RESULT)),
        read_run,
    ),
    "NPZ": (
        "scan.npz",
        lambda path: np.savez(path, **scan_arrays()),
        RawDataTorch.from_file,
    ),
    "compressed NPZ": (
        "scan.npz",
        lambda path: np.savez_compressed(path, **scan_arrays()),
        RawDataTorch.from_file,
    ),
    "CXI": ("scan.cxi", write_cxi, RawDataTorch.from_file),
    "product.h5": (
        "product.h5",
        lambda path: write_pair(path.parent, RawDataTorch.from_arrays(scan_arrays(), "toy")),
        lambda path: RawDataTorch.from_file(path.parent),
    ),
    "bundle": ("wts.h5.zip", write_bundle, load_model),
    "Lightning checkpoint": (
        "last.ckpt",
        lambda path: torch.save({"state_dict": {}}, path),
        load_model,
    ),
}


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_file(reader, tmp_path):
    name, write, read = READERS[reader]
    path = tmp_path / name
    write(path)
    valid = path.read_bytes()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damage())
    def check(spoil):
        path.write_bytes(spoil(valid))
        before = tree(tmp_path)
        try:
            read(path)
        except USER_ERRORS as error:
            line = describe(error)
            assert name in line or "config" in line, line
            assert len(line.splitlines()) == 1
        assert tree(tmp_path) == before

    check()


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(["weights.pt", "state.pt", "manifest.json"]), damage())
def test_damaged_checkpoint(tmp_path_factory, name, spoil):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(folder, 3, {"w": torch.ones(2)}, {"step": 3})
    path = folder / "step_3" / name
    valid = path.read_bytes()
    path.write_bytes(spoil(valid))
    if path.read_bytes() == valid:
        return
    try:
        loaded = load_checkpoint(folder / "step_3")
    except CheckpointError as error:
        assert "step_3" in str(error)  # noqa: PT017 - the damage may be harmless white space
    else:
        assert name == "manifest.json"
        assert torch.equal(loaded.weights["w"], torch.ones(2))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(damage())
def test_damaged_status_is_a_failed_run(tmp_path_factory, spoil):
    folder = tmp_path_factory.mktemp("run")
    (folder / "status.json").write_bytes(spoil(b'{"status": "complete", "step": 7}'))
    assert isinstance(read_status(folder)["status"], str)


class Executed:
    """Unpickling this would create the file ``executed`` in the working directory."""

    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize(
    "reader", [name for name in READERS if name not in ("Python configuration", "JSON")]
)
def test_a_pickle_in_its_place_is_not_run(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, write, read = READERS[reader]
    write(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Executed()))
    with pytest.raises(USER_ERRORS, match=name.partition(".")[0]):
        read(tmp_path / name)
    assert not (tmp_path / "executed").exists()

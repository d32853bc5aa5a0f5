"""The unmodified Ptychodus 1.7: what it lists, and a batch training and reconstruction.

Skipped where ptychodus is not installed; ``slow`` because every call starts new processes.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="needs ptychodus==1.7.*")
pytestmark = pytest.mark.slow

SETTINGS = """[Processing]
Algorithm = {key}
[PtychoPINNTorchData]
model_size = 64
num_channels = 1
grid_size_x = 1
grid_size_y = 1
[PtychoPINNTorchModel]
num_filters_scale = 1
[PtychoPINNTorchTraining]
epochs = 1
device = cpu
"""


def call(*arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def batch(tmp_path):
    from ptycho_torch.product_files import write_pair
    from ptycho_torch.raw_data import RawDataTorch
    from ptycho_torch.simulate import SimulationSettings, simulate

    scan = RawDataTorch.from_arrays(simulate(SimulationSettings(rows=7)), "simulated")
    write_pair(tmp_path / "in", scan)
    return tmp_path, scan


def test_both_keys_and_our_own_are_listed():
    listed = call("ptycho_torch.ptychodus", "--list").split()
    assert {
        "ptychopinn-torch_unsupervised",
        "ptychopinn-torch_supervised",
        "trainrig_hybrid",
    } <= set(listed)


def test_train_then_reconstruct(batch):
    folder, _ = batch
    key = "ptychopinn-torch_unsupervised"
    (folder / "in" / "settings.ini").write_text(SETTINGS.format(key=key))
    places = ("-i", str(folder / "in"), "-o", str(folder / "out"))
    call("ptychodus", "-b", "train", *places)
    best = next((folder / "out").rglob("best*.ckpt"))
    best.rename(folder / "in" / "model.ckpt")
    call("ptychodus", "-b", "reconstruct", *places)
    assert list((folder / "out").glob("product.*.h5"))


def test_own_entry_returns_the_object_on_the_input_grid(batch):
    from ptycho_torch.product_files import read_object

    folder, scan = batch
    call(
        "ptycho_torch.ptychodus", "-b", "reconstruct", "-i", str(folder / "in"),
        "-o", str(folder / "out"), "--refine", "20",
    )  # fmt: skip
    products = sorted((folder / "out").glob("product.*.h5"))
    assert len(products) == 2  # an intermediate result and the last
    found, centre, _ = read_object(products[-1])
    assert found.shape == scan.objectGuess.shape
    assert centre == (0.0, 0.0)
    inner = (slice(50, -50), slice(50, -50))
    truth, found = scan.objectGuess[inner], found[inner]
    found = found * np.exp(-1j * np.angle((found * truth.conj()).sum()))
    assert np.abs(found - truth).mean() < 0.12

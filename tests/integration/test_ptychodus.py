"""The unmodified Ptychodus 1.7: what it lists, and a batch training and reconstruction.

Skipped where ptychodus is not installed; ``slow`` because every call starts new processes.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ptycho_torch.data.product_files import read_object, write_pair
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.study.evaluate import evaluate

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
    from ptycho_torch.physics.simulate import SimulationSettings, simulate
    from ptycho_torch.raw_data import RawDataTorch

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


@pytest.mark.parametrize("kind", ["unsupervised", "supervised"])
def test_train_then_reconstruct(batch, kind):
    folder, scan = batch
    key = f"ptychopinn-torch_{kind}"
    if kind == "supervised":
        write_pair(folder / "in", scan, obj=scan.objectGuess)
    (folder / "in" / "settings.ini").write_text(SETTINGS.format(key=key))
    places = ("-i", str(folder / "in"), "-o", str(folder / "out"))
    call("ptychodus", "-b", "train", *places)
    best = next((folder / "out").rglob("best*.ckpt"))
    best.rename(folder / "in" / "model.ckpt")
    call("ptychodus", "-b", "reconstruct", *places)
    (product,) = (folder / "out").glob("product.*.h5")
    found, grid = read_object(product)
    assert np.isfinite(found).all()
    assert np.ptp(np.angle(found)) > 0
    if kind == "unsupervised":  # the start object is centred on the positions
        around = Grid.around(scan.coords, scan.N)
        np.testing.assert_allclose([grid.x0, grid.y0], [around.x0, around.y0], atol=1e-6)


def test_own_entry_returns_the_object_on_the_input_grid(batch):
    folder, scan = batch
    settings = SETTINGS.format(key="ptychopinn-torch_unsupervised")  # the launcher's choice wins
    (folder / "in" / "settings.ini").write_text(settings)
    call(
        "ptycho_torch.ptychodus", "-b", "reconstruct", "-i", str(folder / "in"),
        "-o", str(folder / "out"), "--refine", "20",
    )  # fmt: skip
    products = sorted((folder / "out").glob("product.*.h5"))
    assert len(products) == 2  # an intermediate result and the last
    found, grid = read_object(products[-1])
    start, place = read_object(folder / "in" / "product.h5")
    assert found.shape == start.shape
    np.testing.assert_allclose([grid.x0, grid.y0], [place.x0, place.y0], atol=1e-6)
    scores = evaluate(scan.objectGuess, found, grid, scan.coords)[0]
    assert scores["ssim_phase"] > 0.8
    assert max(abs(scores["shift_x_px"]), abs(scores["shift_y_px"])) < 0.2

"""Training on the merged object of neighbouring frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
from ptycho_torch.data.dataset import EpochShuffle, GroupDataset
from ptycho_torch.network.assembly import Stitcher
from ptycho_torch.network.pinn import PtychoPINN, pinn_loss
from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.grouping import neighbourhoods
from ptycho_torch.train.workflows import check_overlap


@pytest.fixture(scope="module")
def scan():
    return RawDataTorch.from_arrays(simulate(SimulationSettings(rows=5)), "simulated")


@pytest.fixture(scope="module")
def net(scan):
    torch.manual_seed(0)
    probe = torch.from_numpy(scan.probe_modes) / 8
    return PtychoPINN(ModelConfig(N=64, gridsize=1, n_filters_scale=1), probe, 8.0)


def test_neighbourhoods_hold_the_frame_and_its_nearest(scan):
    rows = np.arange(1, 25)
    groups = neighbourhoods(scan.xcoords, scan.ycoords, rows, 4)
    np.testing.assert_array_equal(groups.nn_indices[:, 0], rows)
    for row, chosen in zip(rows, groups.nn_indices, strict=True):
        distance = np.hypot(*(scan.coords[rows] - scan.coords[row]).T)
        assert set(chosen) == set(rows[np.argsort(distance)[:4]])
    with pytest.raises(ValueError, match="cannot form groups of 9"):
        neighbourhoods(scan.xcoords, scan.ycoords, rows[:5], 9)


def test_each_frame_passes_alone_and_is_diffracted_from_the_stitched_object(scan, net):
    rows = np.arange(25)
    batch = GroupDataset(scan, neighbourhoods(scan.xcoords, scan.ycoords, rows, 6), 1.0)
    images, relative = batch.__getitems__([7])["images"], batch.__getitems__([7])["relative"]
    with torch.no_grad():
        patches = net.patches(images)
        alone = torch.cat([net.patches(images[:, k : k + 1]) for k in range(6)], 1)
        torch.testing.assert_close(patches, alone, rtol=1e-4, atol=1e-5)
        weight = net.probe.abs().square().sum(0)
        stitcher = Stitcher((0.0, 0.0), (120, 120), (60.0, 60.0))
        stitcher.add(patches[0], -relative[0], weight / weight.max())
        seen = physics.extract_patches(stitcher.result(), 60 - relative[0], 64)
        expected = physics.diffract(physics.illuminate(seen[None], net.probe)) * 8.0
        found = net(images, relative)
    # the merge adds 1e-3 to its weights, which only matters where the probe is dark
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    assert (found - net.diffract(patches)).abs().mean() > 0.05 * expected.abs().mean()


def test_an_epoch_passes_as_many_frames_as_without_overlap():
    order = EpochShuffle(90, seed=3, take=10)
    first, again = list(order), list(order)
    assert first == again
    assert len(set(first)) == len(order) == 10
    order.set_epoch(1)
    assert list(order) != first


def test_squared_amplitude_loss():
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])
    assert pinn_loss(a, b, "mse").item() == pytest.approx(2.5)


@pytest.mark.parametrize("change", [{"gridsize": 2}, {"object_big": False}])
def test_overlap_is_refused_where_it_means_nothing(change):
    config = TrainingConfig(model=ModelConfig(**change))
    check_overlap(config, 0)
    with pytest.raises(ValueError, match="--overlap-frames: 9 with gridsize"):
        check_overlap(config, 9)

"""Scans in every tolerated layout, grouping, containers, and what must be refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from ptycho_torch.data_container import PtychoDataContainerTorch
from ptycho_torch.raw_data import RawDataTorch, load_data
from ptycho_torch.scan.grouping import group_frames


def saved(tmp_path, arrays, **changes):
    arrays = {**arrays, **changes}
    np.savez(tmp_path / "scan.npz", **{k: v for k, v in arrays.items() if v is not None})
    return tmp_path / "scan.npz"


@pytest.mark.parametrize("layout", ["frames_last", "channel", "alias", "float64", "counts"])
def test_tolerated_layouts_give_the_same_scan(layout, toy_arrays, tmp_path):
    frames = toy_arrays["diff3d"]
    changes = {
        "frames_last": {"diff3d": np.moveaxis(frames, 0, -1)},
        "channel": {"diff3d": frames[..., None]},
        "alias": {"diff3d": None, "diffraction": frames},
        "float64": {"diff3d": frames.astype(float), "probeGuess": toy_arrays["probeGuess"] + 0j},
        "counts": {"diff3d": np.rint(frames.astype(float) ** 2).astype(np.uint16)},
    }[layout]
    raw = RawDataTorch.from_file(saved(tmp_path, toy_arrays, **changes))
    np.testing.assert_allclose(raw.diff3d, frames, atol=1e-5)
    assert raw.diff3d.dtype == np.float32
    assert raw.probeGuess.dtype == np.complex64


def test_the_axis_is_chosen_by_the_coordinates_not_by_the_shape(toy_arrays, tmp_path):
    rows = np.arange(64) % 49
    arrays = {k: v[rows] for k, v in toy_arrays.items() if len(v) == 49}
    raw = RawDataTorch.from_file(saved(tmp_path, {**toy_arrays, **arrays}))
    np.testing.assert_array_equal(raw.diff3d[63], toy_arrays["diff3d"][63 % 49])


def test_whole_floats_are_counts_and_the_decision_is_logged(toy_arrays, tmp_path, caplog):
    counts = np.rint(toy_arrays["diff3d"].astype(float) ** 2).astype(np.float32)
    with caplog.at_level(logging.INFO, "ptycho_torch.scan.rules"):
        raw = RawDataTorch.from_file(saved(tmp_path, toy_arrays, diff3d=counts))
    np.testing.assert_allclose(raw.diff3d, toy_arrays["diff3d"], atol=1e-5)
    assert "frames are counts (all values whole)" in caplog.text


def test_a_declared_domain_wins(toy_arrays, tmp_path):
    whole = np.ones_like(toy_arrays["diff3d"]) * 4
    path = saved(tmp_path, toy_arrays, diff3d=whole, measurement_domain=np.array("amplitude"))
    assert float(RawDataTorch.from_file(path).diff3d.max()) == 4.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"xcoords": None}, KeyError, "missing xcoords"),
        ({"diff3d": None}, KeyError, "missing diff3d"),
        ({"probeGuess": None}, KeyError, "probeGuess"),
        ({"ycoords": np.zeros(3)}, ValueError, r"ycoords has shape \(3,\)"),
        ({"diff3d": np.ones((5, 64, 64), np.float32)}, ValueError, "as many coordinates"),
        ({"diff3d": np.ones((49, 64, 32), np.float32)}, ValueError, "square"),
        ({"diff3d": np.zeros((49, 64, 64), np.float32)}, ValueError, "dead detector"),
        ({"diff3d": -np.ones((49, 64, 64), np.float32)}, ValueError, "negative"),
        ({"probeGuess": np.ones((32, 32), np.complex64)}, ValueError, "probeGuess has shape"),
        ({"probeGuess": np.zeros((64, 64), np.complex64)}, ValueError, "empty"),
        ({"Y": np.ones((49, 64, 64))}, ValueError, "complex64"),
        ({"measurement_domain": np.array("volts")}, ValueError, "amplitude or counts"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(change, error, message, toy_arrays, tmp_path):
    with pytest.raises(error, match=message):
        RawDataTorch.from_file(saved(tmp_path, toy_arrays, **change))


def test_nan_frames_are_named(toy_arrays, tmp_path):
    frames = toy_arrays["diff3d"].copy()
    frames[[2, 7], 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"2 frames hold NaN or infinity \(rows 2, 7\)"):
        RawDataTorch.from_file(saved(tmp_path, toy_arrays, diff3d=frames))


def test_objects_in_a_file_are_never_unpickled(toy_arrays, tmp_path):
    path = tmp_path / "scan.npz"
    np.savez(path, **toy_arrays, _metadata=np.array({"nphotons": 1}, dtype=object))
    assert len(RawDataTorch.from_file(path)) == 49
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a readable NPZ"):
        RawDataTorch.from_file(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        RawDataTorch.from_file(tmp_path / "absent.npz")


def test_round_trip_and_memory_map(toy_arrays, tmp_path, toy_scan):
    raw = RawDataTorch.from_file(toy_scan)
    raw.to_file(tmp_path / "again.npz")
    again = RawDataTorch.from_file(tmp_path / "again.npz", mapped=True)
    assert isinstance(again.diff3d, np.memmap)
    np.testing.assert_array_equal(again.diff3d, raw.diff3d)
    raw.to_file(tmp_path / "second.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_mapped_counts_are_converted_as_they_are_read(toy_arrays, tmp_path):
    counts = np.rint(toy_arrays["diff3d"].astype(float) ** 2).astype(np.uint16)
    raw = RawDataTorch.from_file(saved(tmp_path, toy_arrays, diff3d=counts), mapped=True)
    np.testing.assert_allclose(raw.diff3d[[3, 1]], toy_arrays["diff3d"][[3, 1]], atol=1e-5)


def test_container_layout(toy_scan):
    raw = RawDataTorch.from_file(toy_scan)
    box = PtychoDataContainerTorch.from_raw(raw, gridsize=2, nsamples=10, seed=1)
    assert box.X.shape == (10, 64, 64, 4)
    assert box.X.dtype == torch.float32
    assert box.Y.dtype == torch.complex64
    assert box.Y_I.shape == box.Y_phi.shape == box.X.shape
    assert box.coords_nominal is box.coords_true
    assert box.coords.dtype == torch.float32
    assert box.local_offsets.dtype == box.global_offsets.dtype == torch.float64
    assert box.global_offsets.shape == (10, 1, 2, 1)
    assert box.nn_indices.dtype == torch.int32
    assert box.images.shape == (10, 4, 64, 64)
    assert box.positions.shape == (10, 4, 1, 2)
    assert box.model_probe.shape == (1, 1, 1, 64, 64)
    torch.testing.assert_close(box.X.square().sum((1, 2)).mean(), torch.tensor(32.0**2))


def test_labels_are_cut_where_the_frames_were_taken(toy_scan):
    """An asymmetric object tells the true positions from the mirrored ones."""
    raw = RawDataTorch.from_file(toy_scan)
    groups = raw.group(2, 5, seed=1)
    labels = raw.labels(groups)
    index = groups.nn_indices[2, 3]
    x, y = int(raw.xcoords[index]), int(raw.ycoords[index])
    wanted = raw.objectGuess[y - 32 : y + 32, x - 32 : x + 32]
    np.testing.assert_allclose(labels[2, :, :, 3], wanted, atol=1e-6)
    mirrored = raw.labels(groups, legacy_mirrored=True)
    assert np.abs(mirrored - labels).max() > 0.01


def test_labels_are_required_where_they_are_used(toy_arrays, tmp_path):
    raw = RawDataTorch.from_file(saved(tmp_path, toy_arrays, objectGuess=None))
    box = PtychoDataContainerTorch.from_raw(raw, nsamples=4)
    assert torch.equal(box.Y, torch.ones_like(box.Y))
    with pytest.raises(ValueError, match="neither Y nor objectGuess"):
        box.require_labels("supervised training")


def test_grouping_limits():
    x, y = np.random.RandomState(0).rand(2, 12) * 50
    with pytest.raises(ValueError, match="3 neighbours are fewer than the 4"):
        group_frames(x, y, gridsize=2, nsamples=4, K=3)
    with pytest.raises(ValueError, match="cannot form groups of 16"):
        group_frames(x, y, gridsize=4, nsamples=4, K=16)
    with pytest.raises(ValueError, match="enable_oversampling"):
        group_frames(x, y, gridsize=2, nsamples=40, K=6)
    many = group_frames(x, y, gridsize=2, nsamples=40, K=6, enable_oversampling=True, seed=1)
    assert many.nn_indices.shape == (40, 4)
    paper = group_frames(x, y, gridsize=2, nsamples=12, K=5, include_anchor=True, seed=1)
    np.testing.assert_array_equal(paper.nn_indices[:, 0], np.arange(12))


def test_load_data_subsamples_sorted_and_adjusts_coordinates(toy_scan):
    raw = load_data(toy_scan, n_subsample=20, subsample_seed=4, swap_xy=True, flip_x=True)
    assert len(raw) == 20
    assert np.all(np.diff(raw.sample_indices) > 0)
    whole = RawDataTorch.from_file(toy_scan)
    np.testing.assert_array_equal(raw.xcoords, -whole.ycoords[raw.sample_indices])

"""Scans as real programs write them: read rightly, or refused with the true cause in one line."""

from __future__ import annotations

import bz2
import gzip

import h5py
import numpy as np
import pytest
import yaml

from ptycho_torch.data.far_field import EV_J, HC_EV_M
from ptycho_torch.data.staging import open_staged, stage
from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.rules import Assumptions

N, ENERGY_EV, DISTANCE_M, PIXEL_M = 64, 1000.0, 1.0, 75e-6
OBJECT_PIXEL_M = HC_EV_M / ENERGY_EV * DISTANCE_M / (N * PIXEL_M)


@pytest.fixture(scope="module")
def truth():
    """16 simulated frames; positions, counts and probe are known."""
    arrays = simulate(SimulationSettings(rows=4, photons=2e4))
    return {**arrays, "counts": np.rint(arrays["diff3d"].astype(float) ** 2).astype(np.uint32)}


@pytest.fixture
def metres(truth):
    """(n, 2) true positions in metres, x then y."""
    return np.stack([truth["xcoords"], truth["ycoords"]], 1) * OBJECT_PIXEL_M


def saved(path, truth, **changes):
    keys = ("xcoords", "ycoords", "diff3d", "probeGuess", "measurement_domain")
    arrays = {**{key: truth[key] for key in keys}, **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def write_cxi(path, truth, metres, **changes):
    """A far-field CXI file with cdtools' conventions; a change of None leaves a field out."""
    fields = {
        "instrument_1/detector_1/data": truth["counts"].astype(np.uint16),
        "instrument_1/detector_1/distance": DISTANCE_M,
        "instrument_1/detector_1/x_pixel_size": PIXEL_M,
        "instrument_1/detector_1/y_pixel_size": PIXEL_M,
        "instrument_1/detector_1/basis_vectors": [[0, -PIXEL_M], [-PIXEL_M, 0], [0, 0]],
        "instrument_1/source_1/energy": ENERGY_EV * EV_J,
        "sample_1/geometry_1/translation": np.pad(metres, ((0, 0), (0, 1))),
        **{key.replace("__", "/"): value for key, value in changes.items()},
    }
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[f"entry_1/{name}"] = value
    return path


def check_same(scan, truth, mirrored=()):
    """Positions up to a shift, and frames pixel by pixel."""
    for key in ("xcoords", "ycoords"):
        sign = -1 if key in mirrored else 1
        np.testing.assert_allclose(
            np.diff(getattr(scan, key)), sign * np.diff(truth[key]), atol=1e-3
        )
    np.testing.assert_allclose(scan.diff3d, truth["diff3d"], atol=1e-4)


def notes(scan):
    return "\n".join(note.text for note in scan.notes)


# --- CXI ---


def test_cxi_positions_have_the_sign_of_the_detectors_axes(truth, metres, tmp_path):
    path = tmp_path / "scan.cxi"
    check_same(RawDataTorch.from_file(write_cxi(path, truth, metres)), truth)
    basis = {"instrument_1__detector_1__basis_vectors": None}
    check_same(RawDataTorch.from_file(write_cxi(path, truth, metres, **basis)), truth)
    basis = {"instrument_1__detector_1__basis_vectors": [[0, -PIXEL_M, 0], [-PIXEL_M, 0, 0]]}
    check_same(RawDataTorch.from_file(write_cxi(path, truth, metres, **basis)), truth)
    basis = {"instrument_1__detector_1__basis_vectors": [[0, -PIXEL_M, 0], [PIXEL_M, 0, 0]]}
    turned = RawDataTorch.from_file(write_cxi(path, truth, metres, **basis))
    check_same(turned, truth, mirrored=["xcoords"])
    every = np.broadcast_to(np.array([[0, -PIXEL_M, 0], [-PIXEL_M, 0, 0]]), (16, 2, 3))
    basis = {"instrument_1__detector_1__basis_vectors": every}
    check_same(RawDataTorch.from_file(write_cxi(path, truth, metres, **basis)), truth)


def test_a_rotated_detector_swaps_the_axes(truth, metres, tmp_path):
    basis = {"instrument_1__detector_1__basis_vectors": [[-PIXEL_M, 0, 0], [0, -PIXEL_M, 0]]}
    scan = RawDataTorch.from_file(write_cxi(tmp_path / "a.cxi", truth, metres, **basis))
    np.testing.assert_allclose(np.diff(scan.ycoords), np.diff(truth["xcoords"]), atol=1e-3)
    np.testing.assert_allclose(np.diff(scan.xcoords), np.diff(truth["ycoords"]), atol=1e-3)


@pytest.mark.parametrize("bits", [0x1000, 0x20, 0x1000 | 0x800])
def test_informative_mask_bits_are_good_pixels(bits, truth, metres, tmp_path):
    mask = np.full((N, N), bits, np.uint32)
    mask[3, 4] = bits | 4  # hot as well
    mask[5, 6] = 0x80
    change = {"instrument_1__detector_1__mask": mask}
    scan = RawDataTorch.from_file(write_cxi(tmp_path / "a.cxi", truth, metres, **change))
    assert np.argwhere(scan.bad_pixels).tolist() == [[3, 4], [5, 6]]
    assert "only inform" in notes(scan)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.int32, np.float32])
def test_sentinels_and_gaps_are_masked_in_every_type(kind, truth, metres, tmp_path):
    frames = truth["counts"].astype(kind)
    sentinel = -1 if np.dtype(kind).kind == "i" else np.nan if kind is np.float32 else None
    frames[:, 20] = np.iinfo(kind).max if sentinel is None else sentinel
    change = {"instrument_1__detector_1__data": frames}
    path = write_cxi(tmp_path / "a.cxi", truth, metres, **change)
    same = saved(tmp_path / "a.npz", truth, diff3d=frames, measurement_domain=np.array("counts"))
    for scan in (RawDataTorch.from_file(path), RawDataTorch.from_file(same)):
        assert scan.bad_pixels.shape == (N, N)
        assert scan.bad_pixels[20].all()
        assert scan.bad_pixels.sum() == N
        assert float(scan.diff3d.max()) < 1e3
        assert (scan.diff3d[:, 20] == 0).all()


def test_saturation_in_some_frames_masks_these_alone(truth, tmp_path):
    for kind, value in ((np.uint16, 65535), (np.int64, 65535), (np.float64, 2.0**32 - 1)):
        frames = truth["counts"].astype(kind)
        frames[3, 32, 32] = value
        frames[:, 1, 1] = value
        scan = RawDataTorch.from_file(
            saved(tmp_path / "a.npz", truth, diff3d=frames, measurement_domain=None)
        )
        assert scan.bad_pixels.shape == (16, N, N)
        assert scan.bad_pixels.sum() == 17
        assert scan.select(np.array([3])).bad_pixels[0, 32, 32]
        assert "1 in some (saturated)" in notes(scan)
    amplitude = truth["diff3d"].copy()
    amplitude[:, 2, 2] = np.sqrt(np.float32(2**32 - 1))
    scan = RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, diff3d=amplitude))
    assert np.argwhere(scan.bad_pixels).tolist() == [[2, 2]]


def test_mapped_frames_follow_the_same_rules(truth, tmp_path):
    frames = truth["counts"].astype(np.uint16)
    frames[:, 20], frames[3, 1, 1] = 65535, 65535
    change = {"diff3d": frames, "measurement_domain": None}
    path = saved(tmp_path / "a.npz", truth, **change)
    mapped, read = RawDataTorch.from_file(path, mapped=True), RawDataTorch.from_file(path)
    assert not isinstance(mapped.diff3d, np.ndarray)
    np.testing.assert_array_equal(mapped.diff3d[2:5], read.diff3d[2:5])
    np.testing.assert_array_equal(mapped.bad_pixels, read.bad_pixels)


def test_darks_are_subtracted_and_noise_below_zero_is_zero(truth, metres, tmp_path):
    rng = np.random.default_rng(0)
    frames = truth["counts"] + rng.poisson(20, truth["counts"].shape)
    dark = rng.poisson(20, (50, N, N))
    change = {
        "instrument_1__detector_1__data": frames.astype(np.uint16),
        "instrument_1__detector_1__data_dark": dark.astype(np.uint16),
    }
    scan = RawDataTorch.from_file(write_cxi(tmp_path / "a.cxi", truth, metres, **change))
    left = np.square(scan.diff3d).mean() - truth["counts"].mean()
    assert abs(left) < 3  # of 20; noise below zero is cut
    assert "data_dark" in notes(scan)
    subtracted = frames - dark.mean(0)
    domain = {"diff3d": subtracted, "measurement_domain": np.array("counts")}
    share = -subtracted[subtracted < 0].sum() / subtracted[subtracted > 0].sum()
    if share <= 0.1:
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **domain))
    else:
        with pytest.raises(ValueError, match="negative values"):
            RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **domain))


def test_a_little_noise_below_zero_is_taken_as_zero(truth, tmp_path):
    noisy = truth["counts"] + np.random.default_rng(0).normal(0, 0.2, truth["counts"].shape)
    domain = {"diff3d": noisy, "measurement_domain": np.array("counts")}
    scan = RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **domain))
    assert float(scan.diff3d.min()) == 0
    assert "noise: taken as zero" in notes(scan)
    domain["measurement_domain"] = np.array("amplitude")
    with pytest.raises(ValueError, match="negative values"):
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **domain))


@pytest.mark.parametrize(
    ("value", "unit", "read"),
    [(1000.0, "eV", True), (1.0, "keV", True), (1000.0, None, False), (1.0, None, False)],
)
def test_energies_are_told_by_unit_or_refused(value, unit, read, truth, metres, tmp_path):
    path = write_cxi(tmp_path / "a.cxi", truth, metres, instrument_1__source_1__energy=value)
    with h5py.File(path, "r+") as file:
        if unit is not None:
            file["entry_1/instrument_1/source_1/energy"].attrs["units"] = unit
    if read:
        return check_same(RawDataTorch.from_file(path), truth)
    with pytest.raises(ValueError, match=r"looks like (eV|keV); CXI wants joules: --assume"):
        RawDataTorch.from_file(path)
    said = Assumptions.parse([f"energy_unit={'eV' if value > 100 else 'keV'}"])
    return check_same(RawDataTorch.from_file(path, assume=said), truth)


def test_lengths_are_read_in_their_units_and_checked(truth, metres, tmp_path):
    path = write_cxi(
        tmp_path / "a.cxi", truth, metres * 1e6, instrument_1__detector_1__distance=1e3
    )
    with h5py.File(path, "r+") as file:
        file["entry_1/instrument_1/detector_1/distance"].attrs["units"] = "mm"
        file["entry_1/sample_1/geometry_1/translation"].attrs["units"] = b"um"
    check_same(RawDataTorch.from_file(path), truth)
    path = write_cxi(tmp_path / "a.cxi", truth, metres, instrument_1__detector_1__distance=1e3)
    with pytest.raises(ValueError, match=r"distance 1000 m lies outside .*looks like mm"):
        RawDataTorch.from_file(path)


def test_a_probe_in_the_file_is_scaled_to_the_frames(truth, metres, tmp_path):
    change = {"instrument_1__source_1__illumination": truth["probeGuess"] * 1e-3}
    scan = RawDataTorch.from_file(write_cxi(tmp_path / "a.cxi", truth, metres, **change))
    power = (np.abs(scan.probeGuess) ** 2).sum()
    given = (np.abs(truth["probeGuess"]) ** 2).sum()
    assert power == pytest.approx(given, rel=0.3)  # the object absorbs
    ratio = scan.probeGuess / truth["probeGuess"]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)


# --- other HDF5 ---


def test_nexus_takes_the_photons_energy_not_the_machines(truth, metres, tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXptycho"
        for name, kind in (
            ("instrument", "NXinstrument"),
            ("instrument/ring", "NXsource"),
            ("instrument/light", "NXbeam"),
            ("instrument/merlin", "NXdetector"),
            ("sample", "NXsample"),
            ("sample/transformations", "NXtransformations"),
        ):
            entry.create_group(name).attrs["NX_class"] = kind
        entry["instrument/ring/energy"] = 3.0
        entry["instrument/ring/energy"].attrs["units"] = "GeV"
        entry["instrument/light/incident_beam_energy"] = ENERGY_EV / 1e3
        entry["instrument/light/incident_beam_energy"].attrs["units"] = "keV"
        detector = entry["instrument/merlin"]
        detector["data"] = truth["counts"].reshape(4, 4, N, N)  # a raster
        for key, value in (
            ("distance", DISTANCE_M),
            ("x_pixel_size", 75.0),
            ("y_pixel_size", 75.0),
        ):
            detector[key] = value
        for key in ("x_pixel_size", "y_pixel_size"):
            detector[key].attrs["units"] = "um"
        for at, key in enumerate("xy"):
            entry[f"sample/transformations/{key}"] = metres[:, at].reshape(4, 4) * 1e6
            entry[f"sample/transformations/{key}"].attrs["units"] = "um"
    check_same(RawDataTorch.from_file(tmp_path / "scan.nxs"), truth)


def test_ptypy_chunks_are_joined_in_order(truth, metres, tmp_path):
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for key, value in (("energy", ENERGY_EV / 1e3), ("distance", DISTANCE_M)):
            file[f"meta/{key}"] = value
        file["meta/psize"] = [PIXEL_M, PIXEL_M]
        weights = np.ones((N, N))
        weights[:, 7] = 0
        file["meta/weight2d"] = weights
        for k, rows in enumerate(np.array_split(np.arange(16), 11)):
            chunk = file.create_group(f"chunks/{k}")
            chunk["data"], chunk["indices"] = truth["counts"][rows].astype(np.int32), rows
            chunk["positions"] = metres[rows][:, ::-1]
            chunk["weights"] = np.zeros(0)
    scan = RawDataTorch.from_file(tmp_path / "scan.ptyd")
    np.testing.assert_allclose(np.diff(scan.xcoords), np.diff(truth["xcoords"]), atol=1e-3)
    assert np.argwhere(scan.bad_pixels.any(0)).ravel().tolist() == [7]
    np.testing.assert_allclose(scan.diff3d[:, :, 8:], truth["diff3d"][:, :, 8:], atol=1e-4)


def test_pty_chi_pairs_are_found_by_either_name(truth, metres, tmp_path):
    with h5py.File(tmp_path / "a_ptychodus_dp.hdf5", "w") as file:
        file["dp"] = truth["counts"].astype(np.float32)
    with pytest.raises(ValueError, match=r"frames alone.*a_ptychodus_para.hdf5"):
        RawDataTorch.from_file(tmp_path / "a_ptychodus_dp.hdf5")
    with h5py.File(tmp_path / "a_ptychodus_para.hdf5", "w") as file:
        file["object"] = np.ones((1, 99, 99), np.complex64)
        for key in ("pixel_height_m", "pixel_width_m"):
            file["object"].attrs[key] = OBJECT_PIXEL_M
        file["probe"] = np.stack([truth["probeGuess"][None]] * 2)  # two OPR modes
        file["probe_position_x_m"], file["probe_position_y_m"] = metres.T
    scan = RawDataTorch.from_file(tmp_path / "a_ptychodus_dp.hdf5")
    check_same(scan, truth)
    assert "2 OPR modes" in notes(scan)
    with pytest.raises(ValueError, match=r"a reconstruction .* without frames"):
        RawDataTorch.from_file(tmp_path / "a_ptychodus_para.hdf5")


def test_fold_slice_writes_matlabs_order(truth, metres, tmp_path):
    with h5py.File(tmp_path / "data_roi0_dp.hdf5", "w") as file:
        file["dp"] = truth["counts"].swapaxes(1, 2).astype(np.float32)
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "w") as file:
        file["ppX"], file["ppY"] = (metres.T * 1e10)[:, None]
        file["dx"] = [[OBJECT_PIXEL_M * 1e10]]
    check_same(RawDataTorch.from_file(tmp_path / "data_roi0_dp.hdf5"), truth)


def test_ptylab_and_its_fourier_mode(truth, metres, tmp_path):
    with h5py.File(tmp_path / "scan.hdf5", "w") as file:
        file["ptychogram"], file["encoder"] = truth["counts"], metres[:, ::-1]
        file["wavelength"], file["zo"], file["dxd"] = HC_EV_M / ENERGY_EV, DISTANCE_M, PIXEL_M
        file["entrancePupilDiameter"] = 1e-6
    check_same(RawDataTorch.from_file(tmp_path / "scan.hdf5"), truth)
    with h5py.File(tmp_path / "scan.hdf5", "r+") as file:
        file["zled"] = 0.1
    with pytest.raises(ValueError, match="Fourier ptychography"):
        RawDataTorch.from_file(tmp_path / "scan.hdf5")


def test_stacks_beside_a_yaml_file(truth, metres, tmp_path):
    np.save(tmp_path / "frames.npy", truth["counts"])
    np.savetxt(tmp_path / "positions.csv", metres[:, ::-1] * 1e6, delimiter=",")
    described = {
        "frames": "frames.npy",
        "positions": "positions.csv",
        "position_unit": "um",
        "position_columns": "yx",
        "energy_eV": ENERGY_EV,
        "distance_m": DISTANCE_M,
        "detector_pixel_m": PIXEL_M,
    }
    path = tmp_path / "scan.yaml"
    path.write_text(yaml.safe_dump(described))
    check_same(RawDataTorch.from_file(path), truth)
    path.write_text(yaml.safe_dump({**described, "energy": 1}))
    with pytest.raises(ValueError, match="unknown key 'energy'; did you mean 'energy_eV'"):
        RawDataTorch.from_file(path)


def test_matlab_5(truth, tmp_path):
    from scipy.io import savemat

    arrays = {key: truth[key] for key in ("xcoords", "ycoords", "probeGuess")}
    savemat(tmp_path / "scan.mat", {**arrays, "diff3d": np.moveaxis(truth["counts"], 0, -1)})
    check_same(RawDataTorch.from_file(tmp_path / "scan.mat"), truth)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "text"),
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n....", "a PNG file"),
        (b"\x93NUMPY\x01\x00", "an NPY file"),
        (b"\x80\x04\x95....", "a pickle file"),
        (bytes(range(128, 256)), "a file of unknown kind"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, said, tmp_path):
    path = tmp_path / "scan.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"not a readable NPZ but {said}; known are") as caught:
        RawDataTorch.from_file(path)
    assert "pickle.load" not in str(caught.value)


def test_suffixes_tell_nothing(truth, metres, tmp_path):
    check_same(RawDataTorch.from_file(write_cxi(tmp_path / "scan.npz", truth, metres)), truth)
    path = saved(tmp_path / "plain.npz", truth)
    (tmp_path / "scan.cxi").write_bytes(path.read_bytes())
    (tmp_path / "packed.dat").write_bytes(bz2.compress(path.read_bytes()))
    (tmp_path / "zipped.dat").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("scan.cxi", "packed.dat", "zipped.dat"):
        check_same(RawDataTorch.from_file(tmp_path / name), truth)
    with h5py.File(tmp_path / "other.npz", "w") as file:
        file["a/b"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"HDF5, no known scan; it holds a/b \(3,\); known layouts"
    ):
        RawDataTorch.from_file(tmp_path / "other.npz")


# --- masks ---


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_masks_of_any_type_do_the_same(kind, truth, tmp_path):
    mask = np.zeros((N, N), kind)
    mask[20:40, 5] = 255 if kind is np.uint8 else 1
    frames = truth["diff3d"].copy()
    frames[:, 20:40, 5] = np.nan
    scan = RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, diff3d=frames, bad_pixels=mask))
    np.testing.assert_array_equal(scan.bad_pixels, mask != 0)
    assert scan.bad_pixels.dtype == bool
    assert np.isfinite(scan.diff3d).all()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((16, 16), bool), r"bad_pixels has shape \(16, 16\) for frames of \(64, 64\)"),
        (np.ones((N, N), bool), "no pixel is left"),
        (np.linspace(0, 1, N * N).reshape(N, N), "bad_pixels holds 0, "),
        (np.full((N, N), np.nan), "bad_pixels holds"),
        (np.full((N, N), "x"), "bad_pixels is <U1"),
    ],
)
def test_masks_that_cannot_be_are_refused(mask, said, truth, tmp_path):
    with pytest.raises(ValueError, match=said):
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, bad_pixels=mask))


def test_a_mask_of_good_pixels_is_found_out(truth, tmp_path):
    good = np.ones((N, N), bool)
    good[:, :3] = False
    path = saved(tmp_path / "a.npz", truth, bad_pixels=good)
    with pytest.raises(ValueError, match="seems to mark the good pixels"):
        RawDataTorch.from_file(path)
    scan = RawDataTorch.from_file(path, assume=Assumptions.parse(["mask=good"]))
    np.testing.assert_array_equal(scan.bad_pixels, ~good)


# --- domains, order, zero frequency ---


@pytest.mark.parametrize("declared", ["counts", "count_intensity"])
def test_both_names_of_counts(declared, truth, tmp_path):
    change = {"diff3d": truth["counts"] * 1.0, "measurement_domain": np.array(declared)}
    check_same(RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **change)), truth)
    change = {"measurement_domain": np.array("normalized_amplitude")}
    check_same(RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **change)), truth)


def test_fractional_counts_are_told_by_the_probes_power(truth, tmp_path):
    fractional = truth["counts"] * 1.037
    path = saved(tmp_path / "a.npz", truth, diff3d=fractional, measurement_domain=None)
    scan = RawDataTorch.from_file(path)
    np.testing.assert_allclose(np.square(scan.diff3d), fractional, rtol=1e-4, atol=1e-3)
    assert "frames are counts (fractional values" in notes(scan)
    path = saved(tmp_path / "a.npz", truth, measurement_domain=None)
    assert "whole squares" in notes(RawDataTorch.from_file(path))
    path = saved(tmp_path / "a.npz", truth, diff3d=truth["diff3d"] * 1.02, measurement_domain=None)
    np.testing.assert_allclose(RawDataTorch.from_file(path).diff3d, truth["diff3d"] * 1.02)


def test_unshifted_frames_are_refused_or_shifted_as_said(truth, tmp_path):
    frames = np.fft.ifftshift(truth["diff3d"], axes=(1, 2))
    path = saved(tmp_path / "a.npz", truth, diff3d=frames)
    with pytest.raises(ValueError, match="intensity lies in the frames' corners"):
        RawDataTorch.from_file(path)
    scan = RawDataTorch.from_file(path, assume=Assumptions.parse(["zero_frequency=corner"]))
    check_same(scan, truth)


def test_axes_of_length_one_and_rasters(truth, tmp_path):
    frames = truth["diff3d"]
    for shape in (frames[:, None], frames[..., None], frames[None], frames.reshape(4, 4, N, N)):
        check_same(RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, diff3d=shape)), truth)


def test_as_many_frames_as_pixels_in_either_order(tmp_path):
    arrays = simulate(SimulationSettings(rows=8, photons=2e4))
    for frames in (arrays["diff3d"], np.moveaxis(arrays["diff3d"], 0, -1)):
        scan = RawDataTorch.from_file(saved(tmp_path / "a.npz", arrays, diff3d=frames))
        np.testing.assert_array_equal(scan.diff3d, arrays["diff3d"])


# --- positions ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 1e-8, "less than one: they look like metres"),
        (lambda x: x * 1e-2, "less than one: they look like micrometres"),
        (lambda x: x * 0 + 40, "all 16 positions are equal"),
        (lambda x: x * 1e4, "GiB of object for 16 frames"),
        (lambda x: np.r_[x[:-1], 5e5], r"position 15 at .* lies 7\.07e\+05 px"),
    ],
)
def test_positions_that_cannot_be_are_refused(change, said, truth, tmp_path):
    moved = {key: change(truth[key]) for key in ("xcoords", "ycoords")}
    with pytest.raises(ValueError, match=said):
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **moved))


def test_a_line_a_single_frame_and_wide_steps_pass(truth, tmp_path):
    line = {"ycoords": np.full(16, 40.0), "xcoords": np.arange(16) * 5.0 + 40}
    RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **line))
    one = {key: truth[key][:1] for key in ("xcoords", "ycoords", "diff3d")}
    RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **one))
    wide = {key: truth[key] * 30 for key in ("xcoords", "ycoords")}
    scan = RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **wide))
    assert "share no part" in notes(scan)


def test_missing_frames_and_unknown_assumptions(truth, tmp_path):
    change = {"diff3d": None, "objectGuess": truth["objectGuess"]}
    with pytest.raises(KeyError, match="no frames, though an object to simulate them of"):
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth, **change))
    with pytest.raises(ValueError, match=r"unknown key; one of domain.*did you mean 'domain'"):
        Assumptions.parse(["domian=counts"])
    with pytest.raises(ValueError, match="choose one of"):
        Assumptions.parse(["domain=volts"])
    path = saved(tmp_path / "a.npz", truth, probeGuess=None)
    with pytest.raises(KeyError, match="missing probeGuess"):
        RawDataTorch.from_file(path)
    scan = RawDataTorch.from_file(path, assume=Assumptions.parse(["probe=mean-frame"]))
    assert (np.abs(scan.probeGuess) ** 2).sum() > 0


# --- several scans ---


def test_views_are_chosen_not_merged(truth, tmp_path):
    frames = np.fft.ifftshift(truth["counts"], axes=(1, 2)).reshape(2, 8, N, N)
    corners = np.stack([truth["ycoords"], truth["xcoords"]], 1).reshape(2, 8, 2)
    probe = np.stack([truth["probeGuess"], 2 * truth["probeGuess"]])[:, None]
    path = tmp_path / "views.npz"
    np.savez(path, data=frames, scan=corners, probe=probe)
    with pytest.raises(ValueError, match=r"2 views, .*--view 0\.\.1"):
        RawDataTorch.from_file(path)
    second = RawDataTorch.from_file(path, view=1)
    assert second.probe_modes.shape == (1, N, N)
    np.testing.assert_allclose(second.diff3d, truth["diff3d"][8:], atol=1e-4)
    with pytest.raises(ValueError, match="--view 2: the file holds 2"):
        RawDataTorch.from_file(path, view=2)
    np.savez(path, data=np.fft.fftshift(frames, axes=(2, 3)), scan=corners, probe=probe)
    centred = RawDataTorch.from_file(path, view=1)
    np.testing.assert_allclose(centred.diff3d, truth["diff3d"][8:], atol=1e-4)


def test_scans_with_other_probes_are_not_joined(truth, tmp_path):
    first = saved(tmp_path / "a.npz", truth, bad_pixels=np.eye(N, dtype=bool))
    second = saved(tmp_path / "b.npz", truth)
    other = saved(tmp_path / "c.npz", truth, probeGuess=np.roll(truth["probeGuess"], 3))
    with pytest.raises(ValueError, match=r"c.npz: its probe differs"):
        stage([first, other], tmp_path / "cache")
    joined = open_staged(stage([first, second], tmp_path / "cache"))
    assert joined.bad_pixels.shape == (32, N, N)
    assert joined.bad_pixels[:16].sum() == 16 * N
    assert not joined.bad_pixels[16:].any()


def test_products_say_what_they_lose(truth, tmp_path):
    from ptycho_torch.data.product_files import write_pair

    given = RawDataTorch.from_file(saved(tmp_path / "a.npz", truth))
    write_pair(tmp_path / "in", given)
    with h5py.File(tmp_path / "in/product.h5", "r+") as file:
        probe = file["probe"][...]
        del file["probe"]
        file["probe"] = np.concatenate([probe, 0.1 * probe, 0.2 * probe])
        index = file["probe_position_indexes"][...]
        index[5] = index[4]
        file["probe_position_indexes"][...] = index
    scan = RawDataTorch.from_file(tmp_path / "in")
    assert "3 OPR modes" in notes(scan)
    assert "1 position indexes occur several times: averaged" in notes(scan)
    assert "1 frames without a position" in notes(scan)
    assert len(scan) == 15
    mean = given.xcoords[4:6].mean() - given.xcoords[0]
    assert scan.xcoords[4] - scan.xcoords[0] == pytest.approx(mean)
    assert len(RawDataTorch.from_file(tmp_path / "in/diffraction.h5")) == 15
    with h5py.File(tmp_path / "in/diffraction.h5", "r+") as file:
        file["indexes"][...] = np.arange(16) // 2
    with pytest.raises(ValueError, match="index 0 belongs to 2 frames"):
        RawDataTorch.from_file(tmp_path / "in")


# --- masks in the refinement ---


def test_hot_masked_pixels_change_no_refinement(truth, tmp_path):
    from ptycho_torch.recon.refine import RefineSettings, refine

    mask = np.zeros((N, N), bool)
    mask[: N // 2, : N // 2] = True
    results = []
    for value in (None, 0.0, 1e6):
        frames = truth["diff3d"].copy()
        if value is not None:
            frames[:, mask] = value
        path = saved(tmp_path / "a.npz", truth, diff3d=frames, bad_pixels=mask)
        results.append(list(refine(RawDataTorch.from_file(path), RefineSettings(epochs=3)))[-1])
    for other in results[1:]:
        assert other.loss == results[0].loss
        np.testing.assert_array_equal(other.numpy(), results[0].numpy())


@pytest.mark.parametrize("loss", ["poisson", "mae", "mse"])
def test_hot_masked_pixels_change_no_training(loss, truth, tmp_path):
    """Input scale, network input, loss and gradient of two updates."""
    import torch

    from ptycho_torch.config_params import DataConfig, ModelConfig, TrainingConfig
    from ptycho_torch.data.dataset import GroupDataset
    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.physics.scaling import input_factor, mean_frame_energy

    mask = np.zeros((N, N), bool)
    mask[: N // 2, N // 2 :] = True
    ends = {}
    for name, value, bad in (
        ("clean", None, mask),
        ("hot", 1e6, mask),
        ("nan", np.nan, mask),
        ("unmasked", 30.0, None),
    ):
        frames = truth["diff3d"].copy()
        if value is not None:
            frames[:, mask] = value
        path = saved(tmp_path / "a.npz", truth, diff3d=frames, bad_pixels=bad)
        scan = RawDataTorch.from_file(path)
        torch.manual_seed(0)
        kind = {"mse": "MSE", "mae": "MAE", "poisson": "Poisson"}[loss]
        model = PtychoPINN_Lightning(
            ModelConfig(loss_function=kind, n_filters_scale=1, C_model=1, C_forward=1),
            DataConfig(N=N, C=1, grid_size=(1, 1)),
            TrainingConfig(),
        )
        factor = input_factor(mean_frame_energy(scan.diff3d), N)
        model.set_scan(scan.probe_modes, factor)
        groups = scan.group(1, len(scan), seed=0)
        batch = GroupDataset(scan, groups, factor * float(model.intensity_scale)).__getitems__(
            list(range(8))
        )
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            value = model.loss(batch)
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        with torch.no_grad():
            ends[name] = (losses, model.net.patches(batch["images"]).numpy())
    for name in ("hot", "nan"):
        assert ends[name][0] == pytest.approx(ends["clean"][0], rel=1e-6)
        np.testing.assert_allclose(ends[name][1], ends["clean"][1], atol=1e-6)
    assert ends["unmasked"][0] != pytest.approx(ends["clean"][0], rel=1e-2)


def test_masked_pixels_are_left_out_of_the_mean():
    import torch

    from ptycho_torch.network.pinn import pinn_loss

    predicted, measured = torch.rand(2, 3, 1, 8, 8)
    bad = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    bad[..., :4] = True
    for mode in ("mae", "mse", "poisson"):
        part = pinn_loss(predicted[..., 4:], measured[..., 4:], mode)
        torch.testing.assert_close(pinn_loss(predicted, measured, mode, bad), part)


# --- frames reshaped ---


def test_oblong_turned_frames_are_cut_to_the_scan(truth, metres, tmp_path):
    from ptycho_torch.data.reshape import Reshape

    wide = np.pad(truth["counts"], ((0, 0), (0, 0), (10, 22)))  # zero frequency at column 42
    change = {"instrument_1__detector_1__data": wide.astype(np.uint16)}
    path = write_cxi(tmp_path / "a.cxi", truth, metres, **change)
    with pytest.raises(ValueError, match="--side N cuts or pads them"):
        RawDataTorch.from_file(path)
    check_same(RawDataTorch.from_file(path, reshape=Reshape(centre=(32, 42), side=N)), truth)
    turned = np.rot90(truth["counts"], -1, axes=(1, 2)).swapaxes(1, 2)
    path = saved(tmp_path / "a.npz", truth, diff3d=turned, measurement_domain=None)
    scan = RawDataTorch.from_file(path, reshape=Reshape(transpose=True, rotate=1))
    check_same(scan, truth)


def test_cutting_and_padding_keep_the_experiment(truth, tmp_path):
    from ptycho_torch.data.reshape import Reshape
    from ptycho_torch.recon.refine import RefineSettings, refine

    path = saved(tmp_path / "a.npz", truth)
    losses = []
    for side in (48, N, 80):
        scan = RawDataTorch.from_file(path, reshape=Reshape(side=side))
        assert side == scan.N
        step = np.diff(scan.xcoords) / np.diff(truth["xcoords"])
        np.testing.assert_allclose(step, side / N, rtol=1e-6)
        state = list(refine(scan, RefineSettings(epochs=15)))[-1]
        losses.append(state.loss * (side / N) ** 2 if side < N else state.loss)
    assert scan.bad_pixels.sum() == 80**2 - N**2
    # edge pixels hold little, so all explain their frames about as well
    assert max(losses) < 1.6 * min(losses)


def test_binning_sums_counts_and_narrows_the_window(truth, metres, tmp_path):
    from ptycho_torch.data.reshape import Reshape

    fine = np.zeros((16, 2 * N, 2 * N), np.uint16)
    fine[:, ::2, ::2] = truth["counts"]
    change = {
        "instrument_1__detector_1__data": fine,
        "instrument_1__detector_1__x_pixel_size": PIXEL_M / 2,
        "instrument_1__detector_1__y_pixel_size": PIXEL_M / 2,
        "instrument_1__detector_1__basis_vectors": None,
    }
    path = write_cxi(tmp_path / "a.cxi", truth, metres, **change)
    check_same(RawDataTorch.from_file(path, reshape=Reshape(binning=2)), truth)
    with pytest.raises(ValueError, match="--bin 2: amplitudes"):
        RawDataTorch.from_file(saved(tmp_path / "a.npz", truth), reshape=Reshape(binning=2))

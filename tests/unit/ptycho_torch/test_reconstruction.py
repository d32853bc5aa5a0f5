"""Refinement of positions and modes, the choice of a start, half-data resolution, uncertainty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.physics.canvas import Grid
from ptycho_torch.physics.forward import diffract_intensity
from ptycho_torch.physics.metrics import fourier_shift
from ptycho_torch.physics.probe import orthogonalised
from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.hybrid import hybrid, start_from
from ptycho_torch.recon.inference import Reconstruction
from ptycho_torch.recon.refine import RefineSettings, refine
from ptycho_torch.study import scoring
from ptycho_torch.study.evaluate import evaluate, half_data
from ptycho_torch.study.uncertainty import expected_error, mean_and_spread, replica

SCAN = SimulationSettings(rows=8, photons=3e5)


def scan_of(settings: SimulationSettings) -> tuple[RawDataTorch, dict[str, np.ndarray]]:
    arrays = simulate(settings)
    unknown = arrays | {"objectGuess": np.ones_like(arrays["objectGuess"])}
    return RawDataTorch.from_arrays(unknown, "simulated"), arrays


def test_defaults_tell_the_truth_and_errors_are_drawn():
    plain, wrong = simulate(SCAN), simulate(replace(SCAN, position_error_px=1.0))
    np.testing.assert_array_equal(plain["xcoords"], plain["xcoords_true"])
    np.testing.assert_array_equal(plain["diff3d"], wrong["diff3d"])
    assert (wrong["xcoords"] - wrong["xcoords_true"]).std() == pytest.approx(1, abs=0.25)


def test_the_given_probe_may_lack_modes():
    arrays = simulate(replace(SCAN, modes=3, start_modes=1))
    assert arrays["probeGuess"].shape == (64, 64)
    assert arrays["probe_true"].shape == (3, 64, 64)
    powers = [(np.abs(arrays[key]) ** 2).sum() for key in ("probeGuess", "probe_true")]
    assert powers[0] == pytest.approx(powers[1], rel=1e-5)
    with pytest.raises(ValueError, match="--start-modes: 4"):
        simulate(replace(SCAN, modes=3, start_modes=4))


def test_wrong_positions_are_found():
    scan, arrays = scan_of(replace(SCAN, position_error_px=1.0))
    fixed = hybrid(scan, RefineSettings(epochs=25))[1]
    moved = hybrid(scan, RefineSettings(epochs=25, learn_positions=True))[1]
    errors = scoring.position_errors(arrays, scan.coords, moved.shifts_xy.numpy())
    assert errors["position_error_after_px"] < 0.6 * errors["position_error_before_px"]
    assert moved.loss < 0.8 * fixed.loss


def test_missing_modes_are_found():
    scan, arrays = scan_of(replace(SCAN, modes=2, start_modes=1))
    one = hybrid(scan, RefineSettings(epochs=25, learn_probe=True))[1]
    two = hybrid(scan, RefineSettings(epochs=25, learn_probe=True), modes=2)[1]
    assert two.loss < 0.85 * one.loss
    found = orthogonalised(two.probe.numpy())
    given = np.abs(scan.probe_modes) ** 2
    assert (np.abs(found) ** 2).sum() == pytest.approx(given.sum(), rel=1e-4)
    lost = arrays["probe_true"][1] / np.linalg.norm(arrays["probe_true"][1])
    unit = found[1] / np.linalg.norm(found[1])
    assert np.abs(np.vdot(unit, lost)) ** 2 > 0.6


def test_orthogonal_modes_give_the_same_frames():
    rng = np.random.default_rng(0)
    probe = rng.standard_normal((3, 16, 16)) + 1j * rng.standard_normal((3, 16, 16))
    obj = torch.from_numpy(rng.standard_normal((16, 16)) + 0.3j)
    turned = orthogonalised(probe)
    gram = np.einsum("mij,kij->mk", turned, turned.conj())
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4 * np.abs(gram).max())
    assert (np.diff(np.diag(gram).real) < 0).all()
    before, after = (
        diffract_intensity(obj * torch.from_numpy(p.astype(complex))) for p in (probe, turned)
    )
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_a_network_worse_than_nothing_is_not_the_start():
    scan, arrays = scan_of(SCAN)
    truth = arrays["objectGuess"]
    grid = Grid(truth.shape, 0.0, 0.0)
    covered = np.ones(truth.shape, bool)
    good = Reconstruction(truth, grid, covered, 0.0)
    bad = Reconstruction(truth.conj() * 1.5, grid, covered, 0.0)
    np.testing.assert_array_equal(start_from(good, scan), truth)
    np.testing.assert_array_equal(start_from(bad, scan), np.ones_like(truth))


def test_a_fractional_grid_costs_no_score():
    rng = np.random.default_rng(2)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128), indexing="ij"))
    detail = np.fft.ifft2(np.fft.fft2(rng.standard_normal((128, 128))) * (f < 0.4)).real
    truth = (1 + 0.2 * detail) * np.exp(0.3j * detail)
    grid = Grid(truth.shape, 0.37, -0.45)
    moved = fourier_shift(truth, np.array([0.45, -0.37]))  # pixel [0, 0] lies on (0.37, -0.45)
    coords = np.array([[20.0, 20.0], [100.0, 100.0]])
    scores = evaluate(truth, moved, grid, coords)[0]
    assert scores["mae_amp"] < 1e-3
    assert abs(scores["shift_x_px"]) <= 0.02
    assert abs(scores["shift_y_px"]) <= 0.02


@pytest.mark.parametrize("cutoff", [0.15, 0.3])
def test_half_data_resolution_is_where_the_halves_part(cutoff):
    rng = np.random.default_rng(1)
    side = 160
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij"))

    def noise() -> np.ndarray:
        return rng.standard_normal((side, side)) + 1j * rng.standard_normal((side, side))

    common = np.fft.ifft2(np.fft.fft2(noise()) * (f < cutoff))
    halves = [(1 + 0.3 * common + 0.15 * noise(), Grid((side, side), 5.0, -3.0)) for _ in range(2)]
    coords = np.array([[15.0, 7.0], [154.0, 146.0]])
    scores, one, two = half_data(*halves, coords)
    assert scores["half_period_px"] == pytest.approx(0.5 / cutoff, rel=0.06)
    assert one.shape == two.shape == (135, 135)
    same = half_data(halves[0], halves[0], coords)[0]
    assert same["frc_half_bit_ring"] == len(same["frc"])


def test_the_expected_error_is_that_of_reconstructing_the_reconstruction():
    scan, arrays = scan_of(SCAN)
    obj = arrays["objectGuess"]
    grid, deviation = Grid(obj.shape, 0.0, 0.0), 0.05
    covered = np.ones(grid.shape, bool)

    plain = Reconstruction(obj, grid, covered, 0.0)
    drawn = []
    for seed in range(12):
        simulated = replica(scan, plain, seed)
        assert not np.array_equal(simulated.diff3d, scan.diff3d)
        energies = [np.square(s.diff3d).sum() for s in (simulated, scan)]
        assert energies[0] == pytest.approx(energies[1], rel=0.01)  # as bright as the measurement
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((2, *grid.shape)) * deviation / np.sqrt(2)
        wrong = obj + noise[0] + 1j * noise[1]
        wrong[:, :20] += 0.3 * obj[:, :20]  # an error that every repetition makes
        drawn.append(wrong * np.exp(1j * seed))
    found = expected_error(drawn, plain)
    assert found.shape == grid.shape
    assert np.sqrt((found[:, 20:] ** 2).mean()) == pytest.approx(deviation, rel=0.03)
    assert found[:, :20].mean() == pytest.approx(0.3 * np.abs(obj[:, :20]).mean(), rel=0.05)
    mean, spread = mean_and_spread(drawn, covered)  # does not see what all have in common
    turn = np.exp(-1j * np.angle(np.vdot(obj, mean)))
    assert np.sqrt((spread**2).mean()) == pytest.approx(deviation, rel=0.03)
    error = np.abs(turn * mean - obj)
    assert error[:, :20].mean() == pytest.approx(0.3 * np.abs(obj[:, :20]).mean(), rel=0.05)


def test_a_flat_background_is_found_on_its_own_scale():
    arrays = simulate(replace(SCAN, photons=1e5))
    counts = np.rint(arrays["diff3d"].astype(float) ** 2)
    counts += np.random.default_rng(0).poisson(5, counts.shape)
    arrays["diff3d"] = np.sqrt(counts).astype(np.float32)
    scan = RawDataTorch.from_arrays(arrays, "with background")
    truth, grid = arrays["objectGuess"], Grid(arrays["objectGuess"].shape, 0.0, 0.0)
    scores = {}
    for learnt in (False, True):
        settings = RefineSettings(epochs=30, learn_background=learnt)
        found, state = hybrid(scan, settings, grid=grid)
        scores[learnt] = evaluate(truth, found.object, grid, scan.coords)[0]["ssim_phase"]
    assert float(state.background.median()) == pytest.approx(5, abs=0.3)
    assert scores[True] > scores[False] + 0.3


def test_a_rising_loss_is_noticed_and_answered(caplog):
    scan, _ = scan_of(SCAN)
    wild = RefineSettings(epochs=40, momentum=0.995, step=1.0, damping=0.02)
    losses = [state.loss for state in refine(scan, wild)]
    assert "the loss rises" in caplog.text
    assert losses[-1] < 2 * min(losses)
    caplog.clear()
    list(refine(scan, RefineSettings(epochs=10)))
    assert "the loss rises" not in caplog.text


def test_scores_are_of_covered_pixels():
    arrays = simulate(SCAN)
    truth = arrays["objectGuess"]
    grid = Grid(truth.shape, 0.0, 0.0)
    coords = np.stack([arrays["xcoords"], arrays["ycoords"]], 1)
    rng = np.random.default_rng(0)
    found = truth * (1 + 0.03 * rng.standard_normal(truth.shape))
    whole = evaluate(truth, found, grid, coords)[0]
    covered = np.ones(truth.shape, bool)
    low = coords.min(0).astype(int)
    covered[low[1] : low[1] + 16, low[0] : low[0] + 16] = False
    holed = np.where(covered, found, 40.0)
    without = evaluate(truth, holed, grid, coords)[0]
    scores = evaluate(truth, holed, grid, coords, covered=covered)[0]
    assert 0.8 < scores["covered_share"] < 0.98
    assert without["ssim_amp"] < 0.5 * whole["ssim_amp"]
    for key in ("ssim_amp", "ssim_phase", "mae_amp"):
        assert scores[key] == pytest.approx(whole[key], rel=0.15)
    with pytest.raises(ValueError, match="no frame reached"):
        evaluate(truth, holed, grid, coords, covered=np.zeros_like(covered))

"""Orientation and start probe found from the frames, and the report that says so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.trials import coarse_part, find_orientation, with_start_probe
from ptycho_torch.scan.rules import Assumptions, turned
from ptycho_torch.study.intake import examine, write_intake

WORDS = [
    (axes, sign)
    for axes in ("as-read", "swapped")
    for sign in ("as-read", "negated", "x-negated", "y-negated")
]


def scan_of(settings, **assumed):
    arrays = simulate(settings)
    del arrays["objectGuess"]
    return RawDataTorch.from_arrays(arrays, "simulated", assume=Assumptions(**assumed))


def laid(scan, axes, sign):
    said = Assumptions(position_axes=axes, position_sign=sign)
    return replace(scan, **turned({"xcoords": scan.xcoords, "ycoords": scan.ycoords}, said))


@pytest.mark.parametrize(("axes", "sign"), WORDS)
def test_each_wrong_orientation_is_undone(axes, sign):
    scan = scan_of(SimulationSettings(rows=7, photons=5e4))
    wrong = laid(scan, axes, sign)
    best, second = find_orientation(wrong)[:2]
    again = laid(wrong, best.axes, best.sign)
    np.testing.assert_allclose(again.coords, scan.coords, atol=1e-9)
    assert best.loss < 0.7 * second.loss


def test_an_orientation_is_found_without_a_probe_up_to_the_inversion():
    scan = scan_of(SimulationSettings(rows=7, photons=5e4), probe="mean-frame")
    assert scan.probe_source == "mean-frame"
    wrong = laid(scan, "swapped", "as-read")
    best, second = find_orientation(wrong)[:2]
    again = laid(wrong, best.axes, best.sign)
    same = np.allclose(np.diff(again.coords, axis=0), np.diff(scan.coords, axis=0))
    inverted = np.allclose(np.diff(again.coords, axis=0), -np.diff(scan.coords, axis=0))
    assert same or inverted
    assert best.loss < 0.8 * second.loss


def test_the_defocus_of_a_start_probe_is_found():
    settings = SimulationSettings(rows=7, photons=5e4)
    scan, true = scan_of(settings, probe="mean-frame"), simulate(settings)["probe_true"][0]
    found = with_start_probe(scan)

    def likeness(probe):
        cross = np.fft.ifft2(np.fft.fft2(probe) * np.fft.fft2(true).conj())
        return np.abs(cross).max() / np.linalg.norm(probe) / np.linalg.norm(true)

    assert likeness(found.probe_modes[0]) > 0.9 > 0.7 > likeness(scan.probe_modes[0])
    assert "defocus of" in found.notes[-1].text
    given = scan_of(settings)
    assert with_start_probe(given) is given


def test_a_coarse_part_is_the_same_experiment():
    settings = SimulationSettings(size=128, rows=6, photons=1e5, step_px=8)
    scan = scan_of(settings)
    part = coarse_part(scan, frames=25)
    assert part.N == 64
    assert len(part) == 25
    assert find_orientation(scan)[0].as_read


def test_the_report_says_what_is_doubtful(tmp_path):
    settings = SimulationSettings(rows=6, photons=5e4)
    scan = scan_of(settings)
    assert not [note for note in examine(scan)[2] if note.level == "doubtful"]
    rng = np.random.default_rng(0)
    shuffled = replace(scan, diff3d=scan.diff3d[rng.permutation(len(scan))])
    dim = replace(shuffled, probeGuess=scan.probeGuess * 0.01)
    dim = replace(dim, xcoords=scan.xcoords * 4, ycoords=scan.ycoords * 4)
    moved = np.roll(dim.diff3d, 9, axis=2)
    lines = list(write_intake(replace(dim, diff3d=moved), tmp_path))
    doubtful = "\n".join(line for line in lines if line.startswith("doubtful"))
    for words in ("another order", "probe's power is 0.0", "overlap", "+9."):
        assert words in doubtful
    content = json.loads((tmp_path / "intake.json").read_text())
    assert content["frames"] == len(scan)
    assert [note["text"] for note in content["notes"]] == [
        line.split(": ", 1)[1] for line in lines[:-1]
    ]
    page = (tmp_path / "intake.html").read_text()
    assert "another order" in page
    assert "data:image/png" in page


def test_hot_pixels_are_named_and_masked_on_request():
    arrays = simulate(SimulationSettings(rows=5, photons=5e4))
    arrays["diff3d"][:, 50, 12] = 30.0
    scan = RawDataTorch.from_arrays(arrays, "simulated")
    assert "1 pixels look hot, e.g. row and column (50, 12)" in scan.notes[-1].text
    masked = RawDataTorch.from_arrays(arrays, "simulated", assume=Assumptions(hot_pixels="mask"))
    assert np.argwhere(masked.bad_pixels).tolist() == [[50, 12]]
    assert masked.diff3d[:, 50, 12].max() == 0
    clean = RawDataTorch.from_arrays(simulate(SimulationSettings(rows=5)), "simulated")
    assert "hot" not in " ".join(note.text for note in clean.notes)


def test_a_training_scan_without_a_probe_gets_a_start_probe_too(tmp_path):
    from ptycho_torch.study.cli import training_scan

    arrays = simulate(SimulationSettings(rows=5, photons=5e4))
    keys = ("xcoords", "ycoords", "diff3d")
    np.savez(tmp_path / "scan.npz", **{key: arrays[key] for key in keys})
    scan = training_scan(tmp_path / "scan.npz", mapped=False, assume=["probe=mean-frame"])
    assert "defocus of" in scan.notes[-1].text


def test_the_legend_of_a_ring_correlation_lies_below_its_curves():
    from ptycho_torch.train.figures import _half_bit
    from trainrig.plotting.style import new_figure

    figure = new_figure(4, 3)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], label="amplitude")
    _half_bit(axis, [0, 1], [{"half_bit": 1.0}, {"half_bit": 0.3}])
    figure.canvas.draw()
    assert axis.get_legend().get_window_extent().y1 < axis.get_window_extent().y0

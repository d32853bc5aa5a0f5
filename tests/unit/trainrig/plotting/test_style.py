"""The figure style: labels that do not touch, files that appear whole and are reproducible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainrig.plotting import style


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.2))
def test_spread_keeps_order_and_distance(positions, gap):
    positions = sorted(positions)
    moved = style.spread(positions, gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(moved))
    assert np.isclose(sum(moved), sum(positions))
    if all(b - a >= gap for a, b in itertools.pairwise(positions)):
        assert np.allclose(moved, positions)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shades_and_sequences_get_strictly_different_luminance(count):
    for colours in (style.shades("#0072B2", count), style.sequence(count)):
        luminance = [float(np.dot(c[:3], (0.2126, 0.7152, 0.0722))) for c in colours]
        assert len(luminance) == count
        assert all(abs(a - b) > 0.01 for a, b in itertools.pairwise(luminance))
        assert max(luminance) < 0.85


def _figure():
    with style.paper_style():
        figure = style.new_figure(2, 1.5)
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1])
        ax.set_ylim(0, 1)
        style.label_line_ends(
            ax, [style.EndLabel(0.5, "one", "k"), style.EndLabel(0.5, "two", "k")]
        )
    return figure


def test_saves_png_and_pdf_with_embedded_truetype(tmp_path):
    png, pdf = style.save_figure(_figure(), tmp_path / "deep" / "figure.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType, embedded
    assert b"/Type3" not in content
    assert sorted(path.name for path in png.parent.iterdir()) == ["figure.pdf", "figure.png"]


def test_equal_figures_are_equal_bytes(tmp_path):
    first = [p.read_bytes() for p in style.save_figure(_figure(), tmp_path / "a.png")]
    second = [p.read_bytes() for p in style.save_figure(_figure(), tmp_path / "b.png")]
    assert first == second


def test_labels_do_not_overlap(tmp_path):
    figure = _figure()
    style.save_figure(figure, tmp_path / "a.png")
    one, two = (text.get_window_extent() for text in figure.axes[0].texts)
    assert not one.overlaps(two)


def test_global_settings_are_untouched():
    import matplotlib as mpl

    before = mpl.rcParams["pdf.fonttype"], mpl.rcParams["font.size"]
    _figure()
    assert (mpl.rcParams["pdf.fonttype"], mpl.rcParams["font.size"]) == before


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"figure\.svg: figures are saved as PNG and PDF"):
        style.save_figure(_figure(), tmp_path / "figure.svg")
    assert list(tmp_path.iterdir()) == []

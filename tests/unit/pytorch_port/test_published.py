"""The published values: consistent with each other and with the paper's statements."""

from __future__ import annotations

import itertools

import pytest

from pytorch_port.figures import published


@pytest.mark.parametrize("curve", [*published.FIGURE2, *published.FIGURE3])
def test_curves_ascend_in_steps_and_stay_in_range(curve):
    steps = [step for step, _ in curve.points]
    assert all(a < b for a, b in itertools.pairwise(steps))
    assert all(0 <= accuracy <= 1 for _, accuracy in curve.points)


def test_figure_3_has_three_class_counts_in_two_regimes():
    found = {(curve.regime, curve.class_count) for curve in published.FIGURE3}
    assert found == set(itertools.product(("in_context", "in_weights"), (100, 1600, 12800)))
    assert published.figure3_curve("in_context", 400) is None


def test_interpolation_stays_inside_the_published_steps():
    curve = published.figure3_curve("in_context", 1600)
    assert curve.at(100_000) == pytest.approx(0.77)
    assert curve.at(80_000) == pytest.approx(0.775)
    assert curve.at(500_001) is None
    assert curve.at(60_000) == pytest.approx(0.78)
    assert curve.at(59_999) is None
    assert published.figure3_curve("in_weights", 1600).at(10_000) is None


@pytest.mark.parametrize("curve", [*published.FIGURE2, *published.FIGURE3])
def test_nothing_is_said_before_the_first_reading_or_after_the_last(curve):
    steps = [step for step, _ in curve.points]
    assert steps[0] > 0  # an untrained model is no reading
    assert curve.at(0) is curve.at(3_500) is curve.at(steps[0] - 1) is None
    assert curve.at(steps[-1] + 1) is None


def test_figures_2_and_3_agree_where_they_show_the_same_run():
    in_weights = published.figure3_curve("in_weights", 1600)
    (same,) = (c for c in published.FIGURE2 if (c.regime, c.p_bursty) == ("in_weights", 0.9))
    for step, accuracy in same.points:
        assert in_weights.at(step) == pytest.approx(accuracy, abs=published.READ_ERROR)

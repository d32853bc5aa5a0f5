"""Statistics over runs, against scipy; and what comes back where a figure does not exist."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trainrig.stats import (
    Moments,
    holm,
    incomplete_beta,
    mean_and_sd,
    permutation_test,
    t_cdf,
    t_interval,
    t_quantile,
    two_sided_p,
    welch,
)

FREEDOMS = (1, 1.3, 2, 3, 5, 13, 14, 19, 20, 39, 40, 41, 99.5, 1000, 1e4, 1e6)
NAN = math.nan


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_students_t_agrees_with_scipy(freedom):
    for t in (-3, -0.5, 0.01, 0.7, 1.96, 4, 30):
        assert t_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), rel=1e-10)
        tail = 2 * scipy.stats.t.sf(abs(t), freedom)
        assert two_sided_p(t, freedom) == pytest.approx(tail, rel=1e-10)
    for p in (1e-4, 0.025, 0.3, 0.6, 0.975, 0.9995):
        assert t_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-10)


def test_with_ever_more_runs_it_becomes_the_normal():
    assert two_sided_p(1.96, math.inf) == pytest.approx(2 * scipy.stats.norm.sf(1.96), rel=1e-12)
    assert two_sided_p(math.inf, 3) == 0.0
    assert math.isnan(two_sided_p(NAN, 3))


@given(st.floats(0, 1), st.floats(0.1, 300), st.floats(0.1, 300))
def test_incomplete_beta_agrees_with_scipy(x, a, b):
    expected = scipy.special.betainc(a, b, x)
    assert incomplete_beta(x, a, b) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize(("p", "freedom"), [(0, 3), (1, 3), (NAN, 3), (0.5, 0), (0.5, NAN)])
def test_a_quantile_that_does_not_exist_is_refused(p, freedom):
    with pytest.raises(ValueError, match="needed are 0 < p < 1, freedom > 0"):
        t_quantile(p, freedom)


NUMBERS = st.integers(-(10**9), 10**9).map(lambda i: i / 1000)  # numpy's squares underflow else


@given(st.lists(NUMBERS, min_size=2, max_size=60))
def test_mean_deviation_and_interval_agree_with_scipy(values):
    mean, sd = mean_and_sd(values)
    scale = max(map(abs, values))
    assert mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12 * scale)
    assert sd == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12 * scale)
    if sd > 1e-9 * scale:
        error = sd / math.sqrt(len(values))
        expected = scipy.stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
        assert t_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)


@given(st.floats(-1e300, 1e300), st.integers(2, 50))
def test_equal_values_have_exactly_their_mean_and_no_deviation(value, n):
    assert mean_and_sd([value] * n) == (value, 0.0)
    assert t_interval([value] * n) == (value, value)


def test_what_does_not_exist_is_nan():
    nothing = pytest.approx((NAN, NAN), nan_ok=True)
    assert mean_and_sd([]) == nothing
    assert mean_and_sd([0.5]) == pytest.approx((0.5, NAN), nan_ok=True)
    for bad in (NAN, math.inf, -math.inf):
        assert mean_and_sd([1.0, bad, 2.0]) == nothing
        assert t_interval([1.0, bad, 2.0]) == nothing
        assert math.isnan(welch([1.0, bad, 2.0], [3.0, 4.0]).p)
    assert t_interval([]) == t_interval([0.5]) == nothing
    assert math.isnan(welch([0.5], [0.1, 0.2]).p)
    assert math.isnan(welch([], [0.1, 0.2]).p)


def test_population_deviations_are_converted_both_ways():
    values = [1.0, 2.0, 4.0, 8.0]
    population = float(np.std(values))
    assert Moments.of(values).population_sd == pytest.approx(population)
    assert Moments.of_population(4, 3.75, population).sd == pytest.approx(mean_and_sd(values)[1])
    assert Moments.of([2.0]).population_sd == 0.0
    assert math.isnan(Moments.of_population(1, 2.0, 0.0).sd)


@given(st.lists(NUMBERS, min_size=2, max_size=30), st.lists(NUMBERS, min_size=2, max_size=30))
def test_welch_agrees_with_scipy(a, b):
    if max(np.std(a), np.std(b)) < 1e-6 * max(map(abs, a + b), default=0) or not np.std(a + b):
        return  # scipy warns of lost digits there
    found, expected = welch(a, b), scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-10)
    assert found.t == pytest.approx(expected.statistic, rel=1e-8, abs=1e-10)
    assert found.freedom == pytest.approx(expected.df, rel=1e-8)


def test_welch_without_scatter():
    assert welch([1.0, 1.0], [2.0, 2.0, 2.0]).p == 0.0
    assert welch([1.0, 1.0], [1.0, 1.0, 1.0]).p == 1.0


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_the_step_down_method(p_values):
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected, m = set(), len(p_values)
        for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
            if p_values[i] * (m - rank) >= level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(corrected) if p < level} == rejected


def test_holm_leaves_out_what_cannot_be_judged():
    assert holm([0.02, NAN, 0.04]) == pytest.approx([0.04, NAN, 0.04], nan_ok=True)
    assert holm([]) == []


def difference(values):
    def statistic(labels):
        groups = {name: [] for name in ("a", "b")}
        for label, value in zip(labels, values, strict=True):
            groups[label].append(value)
        return float(np.mean(groups["a"]) - np.mean(groups["b"]))

    return statistic


def test_small_permutation_tests_are_exact_and_agree_with_scipy():
    a, b = [0.9, 1.2, 1.4, 1.3], [0.5, 0.7, 1.1]
    found = permutation_test("aaaabbb", difference([*a, *b]))
    assert (found.exact, found.relabellings) == (True, math.comb(7, 3))
    expected = sum(
        abs(difference([*a, *b])(["b" if i in chosen else "a" for i in range(7)]))
        >= abs(found.statistic) - 1e-12
        for chosen in itertools.combinations(range(7), 3)
    )
    assert found.p == expected / 35
    three = permutation_test("aabbcc", lambda labels: 1.0)
    assert (three.relabellings, three.p) == (90, 1.0)


def test_large_permutation_tests_are_drawn_from_a_seed():
    values = list(np.random.default_rng(0).normal(size=40) + np.repeat([0, 0.6], 20))
    labels = ["a"] * 20 + ["b"] * 20
    first = permutation_test(labels, difference(values), seed=1, most=2000)
    assert not first.exact
    assert first == permutation_test(labels, difference(values), seed=1, most=2000)
    assert first != permutation_test(labels, difference(values), seed=2, most=2000)
    expected = scipy.stats.ttest_ind(values[:20], values[20:]).pvalue
    assert first.p == pytest.approx(expected, abs=4 * math.sqrt(expected / 2000))


def test_a_permutation_test_needs_two_labels_and_a_number():
    assert math.isnan(permutation_test("aaa", lambda labels: 1.0).p)
    assert math.isnan(permutation_test("ab", lambda labels: NAN).p)

"""Statistics over runs: mean, deviation, t interval, effect size, Welch, Holm, permutations.

The unit of analysis is a run: one value per seed. What comes back where a figure does not exist:

| values | mean | sd | interval, Welch's p |
|---|---|---|---|
| none | NaN | NaN | NaN |
| one | the value | NaN: one run has no scatter | NaN |
| any NaN or infinity (a diverged run) | NaN | NaN | NaN |
| several equal ones | exactly that value | exactly 0 | a point; p is 0 or 1 |

A NaN p-value is "cannot be judged", never "not different".
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

#: A p-value below it is called a difference.
LEVEL = 0.05
#: Relabellings up to which a permutation test is exact; above it, as many random ones.
PERMUTATIONS = 20_000
_TINY = 1e-300


@dataclass(frozen=True)
class Moments:
    """Number, mean and sample standard deviation (n - 1) of one value per run."""

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Moments:
        """Return the moments of values, rounded once from the exact ones."""
        numbers = [float(value) for value in values]
        n = len(numbers)
        if n == 0 or not all(map(math.isfinite, numbers)):
            return cls(n, math.nan, math.nan)
        mean = float(statistics.mean(numbers))
        return cls(n, mean, statistics.stdev(numbers) if n > 1 else math.nan)

    @classmethod
    def of_population(cls, n: int, mean: float, population_sd: float) -> Moments:
        """Return the moments from a published deviation that divides by n, not n - 1."""
        return cls(n, mean, population_sd * math.sqrt(n / (n - 1)) if n > 1 else math.nan)

    @property
    def population_sd(self) -> float:
        """The deviation that divides by n; 0 for a single finite value."""
        if self.n == 1:
            return 0.0 if math.isfinite(self.mean) else math.nan
        return self.sd * math.sqrt((self.n - 1) / self.n) if self.n else math.nan


def mean_and_sd(values: Iterable[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (NaN for a single value).

    >>> mean_and_sd([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_and_sd([101.38] * 3), mean_and_sd([0.5])
    ((101.38, 0.0), (0.5, nan))
    """
    found = Moments.of(values)
    return found.mean, found.sd


def t_interval(sample: Iterable[float] | Moments, level: float = 1 - LEVEL) -> tuple[float, float]:
    """Return the confidence interval of the mean by Student's t.

    >>> low, high = t_interval([1.0, 2.0, 3.0])
    >>> round(low, 4), round(high, 4)
    (-0.4841, 4.4841)
    """
    found = sample if isinstance(sample, Moments) else Moments.of(sample)
    if found.n < 2 or not math.isfinite(found.mean + found.sd):
        return math.nan, math.nan
    half = t_quantile(0.5 + level / 2, found.n - 1) * found.sd / math.sqrt(found.n)
    return found.mean - half, found.mean + half


@dataclass(frozen=True)
class WelchTest:
    """Result of Welch's test: t statistic, degrees of freedom, two-sided p-value."""

    t: float
    freedom: float
    p: float


def welch(a: Iterable[float] | Moments, b: Iterable[float] | Moments) -> WelchTest:
    """Test whether two means differ, the variances not assumed equal.

    Without scatter on both sides p is 0 where the means differ and 1 where they do not. With
    fewer than two runs on a side, or a diverged one, everything is NaN.

    Source: B. L. Welch, Biometrika 34 (1947); degrees of freedom by Welch-Satterthwaite.
    """
    one = a if isinstance(a, Moments) else Moments.of(a)
    two = b if isinstance(b, Moments) else Moments.of(b)
    values = (one.mean, one.sd, two.mean, two.sd)
    if min(one.n, two.n) < 2 or not all(map(math.isfinite, values)):
        return WelchTest(math.nan, math.nan, math.nan)
    difference = one.mean - two.mean
    errors = one.sd / math.sqrt(one.n), two.sd / math.sqrt(two.n)
    error = math.hypot(*errors)
    if error == 0:
        differ = difference != 0
        t = math.copysign(math.inf, difference) if differ else 0.0
        return WelchTest(t, float(one.n + two.n - 2), 0.0 if differ else 1.0)
    shares = (errors[0] / error) ** 2, (errors[1] / error) ** 2
    freedom = 1 / (shares[0] ** 2 / (one.n - 1) + shares[1] ** 2 / (two.n - 1))
    t = difference / error
    return WelchTest(t, freedom, two_sided_p(t, freedom))


@dataclass(frozen=True, slots=True)
class Effect:
    """A standardised difference of two means with a confidence interval."""

    size: float
    low: float
    high: float


def hedges_g(a: Iterable[float], b: Iterable[float], level: float = 1 - LEVEL) -> Effect:
    """Return the difference of two means in standard deviations, corrected for small samples.

    ``g = (1 - 3 / (4 m - 1)) (mean a - mean b) / s`` with the pooled standard deviation s of
    ``m = n_a + n_b - 2`` degrees of freedom; the interval is that of the large-sample variance
    ``(n_a + n_b) / (n_a n_b) + g² / (2 (n_a + n_b))``. L. Hedges, I. Olkin, "Statistical Methods
    for Meta-Analysis" (1985), chapter 5. nan for a single value on a side, or without scatter.

    >>> found = hedges_g([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])
    >>> round(found.size, 4), round(found.low, 4), round(found.high, 4)
    (-1.6, -3.4386, 0.2386)
    """
    one, two = Moments.of(a), Moments.of(b)
    freedom = one.n + two.n - 2
    if min(one.n, two.n) < 2:
        return Effect(math.nan, math.nan, math.nan)
    squares = (one.n - 1) * one.sd**2 + (two.n - 1) * two.sd**2
    if squares == 0:
        return Effect(math.nan, math.nan, math.nan)
    g = (1 - 3 / (4 * freedom - 1)) * (one.mean - two.mean) / math.sqrt(squares / freedom)
    error = math.sqrt((one.n + two.n) / (one.n * two.n) + g**2 / (2 * (one.n + two.n)))
    reach = statistics.NormalDist().inv_cdf((1 + level) / 2) * error
    return Effect(g, g - reach, g + reach)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's step-down method.

    A NaN (a comparison that cannot be judged) stays NaN and does not count.

    Source: S. Holm, Scand. J. Statist. 6 (1979).

    >>> holm([0.01, 0.04, math.nan, 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i]
    )
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        statistic: of the labels as they are.
        p: share of relabellings whose statistic is as far from 0 or further.
        relabellings: how many were looked at.
        exact: all there are, not a random sample.
    """

    statistic: float
    p: float
    relabellings: int
    exact: bool


def permutation_test(
    labels: Sequence[Hashable],
    statistic: Callable[[Sequence[Hashable]], float],
    *,
    seed: int = 0,
    most: int = PERMUTATIONS,
) -> PermutationTest:
    """Test a statistic by exchanging the labels of whole runs.

    Args:
        labels: of each run, such as its optimizer.
        statistic: of labels in the order of the runs; 0 is expected where they mean nothing.
            Labellings for which it is NaN are left out.
        seed: of the random relabellings, drawn where there are more than ``most``.
        most: relabellings to look at.

    Returns:
        p is NaN where the statistic is, or where there is no other labelling.
    """
    observed = statistic(labels)
    counts = [labels.count(label) for label in dict.fromkeys(labels)]
    total = math.factorial(len(labels)) // math.prod(map(math.factorial, counts))
    if math.isnan(observed) or total < 2:
        return PermutationTest(observed, math.nan, 0, True)
    exact = total <= most
    draws = _labellings(labels) if exact else _random_labellings(labels, seed, most)
    values = [abs(value) for draw in draws if not math.isnan(value := statistic(draw))]
    bound = abs(observed) * (1 - 1e-12)  # equal statistics, summed in another order
    extreme = sum(value >= bound for value in values)
    own = 0 if exact else 1  # a random sample does not hold the observed labelling
    return PermutationTest(observed, (extreme + own) / (len(values) + own), len(values), exact)


def _labellings(labels: Sequence[Hashable]) -> Iterator[list[Hashable]]:
    """Yield every different order of the labels, once each."""

    def place(open_places: tuple[int, ...], left: list[Hashable]) -> Iterator[list[Hashable]]:
        if not left:
            yield list(order)
            return
        count = labels.count(left[0])
        for chosen in itertools.combinations(open_places, count):
            for i in chosen:
                order[i] = left[0]
            yield from place(tuple(i for i in open_places if i not in chosen), left[1:])

    order = list(labels)
    yield from place(tuple(range(len(labels))), list(dict.fromkeys(labels)))


def _random_labellings(
    labels: Sequence[Hashable], seed: int, count: int
) -> Iterator[list[Hashable]]:
    source = random.Random(seed)
    for _ in range(count):
        yield source.sample(list(labels), len(labels))


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability of a t statistic as far from 0 as ``t`` or further."""
    if math.isnan(t) or math.isnan(freedom):
        return math.nan
    if math.isinf(t):
        return 0.0
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    ratio = t * t / freedom
    return incomplete_beta(1 / (1 + ratio), freedom / 2, 0.5, complement=ratio / (1 + ratio))


def t_cdf(t: float, freedom: float) -> float:
    """Return the distribution function of Student's t."""
    tail = two_sided_p(t, freedom) / 2
    return tail if t < 0 else 1 - tail


@lru_cache(maxsize=1024)
def t_quantile(p: float, freedom: float) -> float:
    """Return the point below which Student's t lies with probability ``p``.

    >>> round(t_quantile(0.975, 2), 6), round(t_quantile(0.975, 1000), 6)
    (4.302653, 1.962339)

    Raises:
        ValueError: ``p`` is not inside (0, 1), or ``freedom`` is not positive.
    """
    if not 0 < p < 1 or not freedom > 0:
        raise ValueError(f"t_quantile: p {p}, freedom {freedom}; needed are 0 < p < 1, freedom > 0")
    if p < 0.5:
        return -t_quantile(1 - p, freedom)
    tail = 2 * (1 - p)
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > tail:
        low, high = high, 2 * high
    while low < (middle := low + (high - low) / 2) < high:
        if two_sided_p(middle, freedom) > tail:
            low = middle
        else:
            high = middle
    return low


def incomplete_beta(x: float, a: float, b: float, complement: float | None = None) -> float:
    """Return the regularised incomplete beta function I_x(a, b).

    Args:
        x: in [0, 1].
        a: positive.
        b: positive.
        complement: 1 - x, where it is known better than by subtraction.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22 (continued fraction), with
    8.17.4 for x right of the mean.
    """
    y = 1 - x if complement is None else complement
    if x <= 0:
        return 0.0
    if y <= 0:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_left(y, x, b, a)
    return _beta_left(x, y, a, b)


def _beta_left(x: float, y: float, a: float, b: float) -> float:
    log_x = math.log1p(-y) if y < 0.5 else math.log(x)
    log_y = math.log1p(-x) if x < 0.5 else math.log(y)
    front = math.exp(a * log_x + b * log_y - _log_beta(a, b)) / a
    # Lentz's method, in Thompson and Barnett's form.
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for factor in (even, odd):
            d, c = 1 + factor * d, 1 + factor / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            step = c * d
            value *= step
        if abs(step - 1) < 1e-16:
            break
    return front * value


def _log_beta(a: float, b: float) -> float:
    """Return log B(a, b); differences of large log-gammas would lose the digits."""
    small, large = min(a, b), max(a, b)
    if large < 20:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    # Stirling: log G(z) = (z - 1/2) log z - z + log(2 pi)/2 + r(z), the large terms subtracted
    # by hand.
    ratio = (large - 0.5) * math.log1p(small / large) + small * math.log(large + small) - small
    return math.lgamma(small) - (ratio + _stirling(large + small) - _stirling(large))


def _stirling(z: float) -> float:
    """Return the remainder of Stirling's series of log-gamma for z >= 20 (DLMF 5.11.1)."""
    w = 1 / (z * z)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z

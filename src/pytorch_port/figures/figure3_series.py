"""From table rows to what a figure draws: series over seeds, colours, and the words around them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_port.figures.headlines import headline
from pytorch_port.sweep.figure3_tables import run_key
from trainrig.plotting.style import LINE_STYLES, MARKERS, colours
from trainrig.stats import mean_and_sd

Rows = Sequence[Mapping[str, Any]]

DECOUPLED = "decoupled"
#: A shrink factor from here on is called nearly no decay.
INERT = 0.9


@dataclass(frozen=True, slots=True)
class Point:
    """Mean and sample standard deviation over ``n`` seeds at ``x``.

    ``error``: standard error of the value itself where ``n`` is 1 and it is a mean.
    """

    x: float
    mean: float
    sd: float
    n: int
    error: float = 0.0

    @property
    def bar(self) -> float:
        """Half length of an error bar: over seeds, or within the only one."""
        return self.sd if self.n > 1 else self.error


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a class count of one variant, at one λ where ``x`` is the step."""

    class_count: int
    variant: str
    weight_decay: float | None
    points: tuple[Point, ...]

    @property
    def repeated(self) -> bool:
        """Whether some point has more than one seed."""
        return any(point.n > 1 for point in self.points)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What stands for what: colour for class count, position for λ, marker for the variant."""

    class_counts: tuple[int, ...]
    weight_decays: tuple[float, ...]
    variants: tuple[str, ...]
    colours: Mapping[int, str]

    @classmethod
    def of(cls, *tables: Rows) -> Encoding:
        """Return the encoding that serves all rows of the given tables."""
        rows = [row for table in tables for row in table]
        counts = tuple(sorted({row["class_count"] for row in rows}))
        return cls(
            class_counts=counts,
            weight_decays=tuple(sorted({row["weight_decay"] for row in rows})),
            variants=tuple(dict.fromkeys(variant(row) for row in rows)),
            colours=colours(counts),
        )

    def position(self, weight_decay: float) -> int:
        """Return the place of λ on the equally spaced axis."""
        return self.weight_decays.index(weight_decay)

    def marker(self, name: str) -> str:
        """Return the marker of a variant."""
        return MARKERS[self.variants.index(name) % len(MARKERS)]

    def dash(self, name: str) -> Any:
        """Return the line style of a variant."""
        return LINE_STYLES[self.variants.index(name) % len(LINE_STYLES)]


def variant(row: Mapping[str, Any]) -> str:
    """Return what, besides class count and λ, tells a line from another.

    >>> variant({"class_count": 100, "weight_decay": 0.1, "backend": "jax"})
    'jax'
    """
    _, _, backend, l2_mode, _ = run_key(row)
    name = backend if l2_mode == DECOUPLED else f"{backend}, {l2_mode}"
    origin = row.get("origin")
    return f"{origin} ({name})" if origin else name


def summarize(rows: Rows, value: str, *, x: str) -> list[Series]:
    """Average over seeds; a run that is there twice counts once, the later row.

    Args:
        rows: metrics rows (``x="weight_decay"``) or curve rows (``x="step"``).
        value: the column to average; rows without a finite value there are left out. Of metrics
            rows it is the headline of that column (``headlines``).
        x: the column along the horizontal axis.

    Returns:
        Series in ascending class count and λ; points in ascending x.
    """
    cells: dict[tuple[int, str, float | None], dict[float, dict[Any, tuple[float, float]]]] = {}
    for row in rows:
        found, error = headline(row, value)
        if not finite(found):
            continue
        decay = None if x == "weight_decay" else row.get("weight_decay")
        line = cells.setdefault((row["class_count"], variant(row), decay), defaultdict(dict))
        line[row[x]][run_key(row)] = (found, error)
    return [
        Series(count, name, decay, tuple(_point(at, [*line[at].values()]) for at in sorted(line)))
        for (count, name, decay), line in sorted(
            cells.items(), key=lambda item: (item[0][0], item[0][2] or 0.0)
        )
    ]


def _point(x: float, found: list[tuple[float, float]]) -> Point:
    mean, sd = mean_and_sd([value for value, _ in found])
    return Point(x, mean, sd, len(found), found[0][1] if len(found) == 1 else 0.0)


def finite(value: Any) -> bool:
    """Return whether ``value`` is a number other than NaN and infinity."""
    return isinstance(value, int | float) and math.isfinite(value)


def diverged(rows: Rows) -> list[tuple[int, float]]:
    """Return (class count, λ) of runs that diverged, or that have no accuracy at all."""
    return sorted(
        {
            (row["class_count"], row["weight_decay"])
            for row in rows
            if row.get("status") == "diverged"
            or not (finite(row.get("accuracy_holdout")) or finite(row.get("accuracy_no_support")))
        }
    )


def shrink_texts(rows: Rows, weight_decays: Iterable[float]) -> list[str]:
    """Return exp(-λΣlr) at each λ as text: a value, a range over the runs, or a dash."""
    texts = []
    for decay in weight_decays:
        known = [
            row["shrink"]
            for row in rows
            if row["weight_decay"] == decay and finite(row.get("shrink"))
        ]
        ends = dict.fromkeys(_share(value) for value in (min(known), max(known))) if known else ()
        texts.append("-".join(ends) or "n/a")
    return texts


def inert_text(rows: Rows) -> str:
    """Return a remark on the λ > 0 that cannot have much effect, or an empty string.

    Decoupled decay multiplies a weight that nothing else moves by exp(-λΣlr) over the whole run.
    """
    known = {row["weight_decay"]: row["shrink"] for row in rows if finite(row.get("shrink"))}
    inert = sorted(decay for decay in known if decay > 0 and known[decay] >= INERT)
    text = "Grey row: exp(-λΣlr), the share of a weight that decay alone leaves after training."
    if inert:
        left = min(known[decay] for decay in inert)
        span = " to ".join(f"{decay:g}" for decay in dict.fromkeys((inert[0], inert[-1])))
        text += f" λ = {span} leaves {math.floor(100 * left) / 100:.2f} or more: nearly no decay."
    return text if known else ""


def _share(value: float) -> str:
    """Return a factor in [0, 1] with the digits that matter.

    >>> [_share(x) for x in (1.0, 0.998, 0.5123, 0.0012, 1e-9)]
    ['1', '0.998', '0.51', '0.001', '1e-09']
    """
    if value > 0.9995:
        return "1"
    if value >= 0.9:
        return f"{value:.3f}"
    if value >= 0.01:
        return f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def data_name(rows: Rows) -> tuple[str, bool]:
    """Return what the sequences were made of, in words, and whether it was synthetic."""
    names = set()
    for row in rows:
        if row.get("source") == "synthetic":
            names.add("synthetic glyphs")
        elif "symbolic" in (row.get("source"), row.get("example_type")):
            names.add("symbols")
        elif row.get("source") or row.get("example_type"):
            names.add("Omniglot")
    return " + ".join(sorted(names)), "synthetic glyphs" in names


def range_text(values: Iterable[int]) -> str:
    """Return one number, or the span of several.

    >>> range_text([4000, 4000]), range_text([500, 50000])
    ('4,000', '500 to 50,000')
    """
    known = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys((known[0], known[-1])))


def seeds_text(series: Iterable[Series]) -> str:
    """Return how many seeds stand behind the points, and what the bars are."""
    points = [point for line in series for point in line.points]
    counts = [point.n for point in points]
    if not counts or max(counts) == 1:
        bars = any(point.error for point in points)
        return "n = 1 seed" + (", bars: s.e. of its last 3 evaluations" if bars else "")
    return f"n = {range_text(counts)} seeds, mean ± s.d."

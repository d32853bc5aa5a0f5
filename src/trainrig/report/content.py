"""What a page consists of, apart from how it looks: tiles, charts, tables, pictures, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure: a number with its unit, what it is, and what to know about it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        x: ascending positions.
        y: values; None is a gap.
        colour: index into the page's colours; equal indices, equal colour.
        dashed: drawn dashed, e.g. a published curve.
        thin: one run behind a mean.
        low, high: a band around the line, e.g. mean ± standard deviation.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    dashed: bool = False
    thin: bool = False
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """An interactive line chart.

    Attributes:
        title: what its choice is called, too.
        series: its lines.
        x_label, y_label: with units.
        log_y: logarithmic height.
    """

    title: str
    series: Sequence[Series]
    x_label: str = "step"
    y_label: str = ""
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that a reader can sort; a cell is a number, a text, a ``Link`` or None."""

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a file, given relative to the page once it is written."""

    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG that becomes part of the page."""

    path: Path
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """A preformatted text behind its title."""

    title: str
    text: str


Item = Chart | Table | Picture | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence or two, and items; charts of one section share a place to choose in."""

    title: str
    items: Sequence[Item]
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: the heading.
        lead: the answer in one or two sentences.
        warnings: what a reader must know first, e.g. that the data are synthetic.
        notes: lines in small print.
        tiles: headline figures.
        sections: the body.
    """

    title: str
    lead: str = ""
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "run"), plural(2, "run")
    ('1 run', '2 runs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"

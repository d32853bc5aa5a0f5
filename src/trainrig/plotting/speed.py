"""What a benchmark measured, as bars: time of a run-step against its floors, and memory.

Beside a figure lies its table, one row per case and loop that it was compared with, from which
``redraw`` makes it again.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrig.plotting.style import (
    INK,
    MUTED,
    PALETTE,
    TEXT_IN,
    new_figure,
    paper_style,
    save_figure,
)
from trainrig.tracking.tables import Column, Row, read_table, write_table

SCHEMA = {
    "case": Column(str),
    "runs": Column(int),
    "steps_per_s": Column(float),
    "slowest": Column(float),
    "fastest": Column(float),
    "arithmetic_floor_s": Column(float, may_be_empty=True),
    "bytes_floor_s": Column(float, may_be_empty=True),
    "peak_memory_bytes": Column(int, may_be_empty=True),
    "against": Column(str, may_be_empty=True),
    "ratio": Column(float, may_be_empty=True),
    "ratio_min": Column(float, may_be_empty=True),
    "ratio_max": Column(float, may_be_empty=True),
    "conditions": Column(str),
}


def draw_results(results: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> list[Path]:
    """Draw milliseconds per run-step and peak memory of every case, and write the table.

    Args:
        results: of a benchmark's JSON file, in their order.
        path: of the PNG; PDF and CSV are written beside it.
        title: hardware, threads and clock.

    Returns:
        The paths of PNG, PDF and CSV.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError(f"{path}: no results to draw; at least one case is needed")
    rows = [row for result in results for row in _rows(result, title)]
    table = path.with_suffix(".csv")
    write_table(rows, table, list(SCHEMA))
    return [*draw_table(table), table]


def _rows(result: Mapping[str, Any], title: str) -> list[Row]:
    rates = result["rates"]
    case: Row = dict.fromkeys(SCHEMA)
    case |= {"case": result["name"], "runs": result["runs"], "conditions": title}
    case |= {"steps_per_s": result["rate"], "slowest": min(rates), "fastest": max(rates)}
    case |= {name: result.get(name) for name in ("arithmetic_floor_s", "bytes_floor_s")}
    case["peak_memory_bytes"] = result.get("peak_memory")
    rows = []
    for other, theirs in result["against"].items():
        ratios = [ours / their for ours, their in zip(rates, theirs, strict=True)]
        ratio = {"ratio": result["ratios"][other], "ratio_min": min(ratios)}
        rows.append({**case, "against": other, **ratio, "ratio_max": max(ratios)})
    return rows or [case]


def draw_table(table: Path) -> list[Path]:
    """Draw the figure of a table that ``draw_results`` wrote; return PNG and PDF.

    Raises:
        ValueError: the table is malformed; file and line are named.
    """
    cases = list({row["case"]: row for row in read_table(table, SCHEMA)}.values())
    with paper_style():
        fig = new_figure(TEXT_IN, 0.9 + 0.24 * len(cases))
        time_ax, memory_ax = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for place, case in enumerate(cases):
            ms, *ends = (1e3 / case[name] for name in ("steps_per_s", "slowest", "fastest"))
            time_ax.barh(place, ms, height=0.6, color=PALETTE[0])
            time_ax.plot(ends, [place, place], color=INK, linewidth=0.8)
            for floor, marker in (("arithmetic_floor_s", "|"), ("bytes_floor_s", "x")):
                if case[floor] is not None:
                    time_ax.plot(1e3 * case[floor], place, marker, color=PALETTE[1])
            memory = case["peak_memory_bytes"] or 0
            memory_ax.barh(place, memory / 2**20, height=0.6, color=MUTED)
        time_ax.set_yticks(range(len(cases)), [case["case"] for case in cases])
        time_ax.invert_yaxis()
        time_ax.set_xlabel("ms per run-step (line: range; floors: | arithmetic, x bytes)")
        memory_ax.set_xlabel("peak memory (MiB)")
        for ax in (time_ax, memory_ax):
            ax.set_xlim(left=0)
            ax.grid(False, axis="y")
        fig.suptitle(cases[0]["conditions"], fontsize=7, color=INK, x=0.01, ha="left")
        return list(save_figure(fig, table.with_suffix(".png")))


def redraw(folder: Path) -> list[Path]:
    """Draw again every table of a benchmark in ``folder``; return PNGs and PDFs.

    Raises:
        ValueError: a table is malformed; file and line are named.
    """
    tables = [path for path in sorted(folder.glob("*.csv")) if _is_ours(path)]
    return [drawn for table in tables for drawn in draw_table(table)]


def _is_ours(table: Path) -> bool:
    with table.open(encoding="utf-8", newline="") as lines:
        return next(csv.reader(lines), None) == list(SCHEMA)

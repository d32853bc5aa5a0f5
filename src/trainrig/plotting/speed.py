"""What a benchmark measured, as bars: time of a run-step against its floors, and memory."""

from __future__ import annotations

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


def draw_results(results: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> list[Path]:
    """Draw milliseconds per run-step and peak memory of every case.

    Args:
        results: of a benchmark's JSON file, in their order.
        path: of the PNG; a PDF is written beside it.
        title: hardware, threads and clock.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError(f"{path}: no results to draw; at least one case is needed")
    places = range(len(results))
    with paper_style():
        fig = new_figure(TEXT_IN, 0.9 + 0.24 * len(results))
        time_ax, memory_ax = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for place, result in zip(places, results, strict=True):
            times = [1e3 / rate for rate in result["rates"]]
            time_ax.barh(place, 1e3 / result["rate"], height=0.6, color=PALETTE[0])
            time_ax.plot([min(times), max(times)], [place, place], color=INK, linewidth=0.8)
            for floor, marker in (("arithmetic_floor_s", "|"), ("bytes_floor_s", "x")):
                if result.get(floor) is not None:
                    time_ax.plot(1e3 * result[floor], place, marker, color=PALETTE[1])
            memory = result.get("peak_memory") or 0
            memory_ax.barh(place, memory / 2**20, height=0.6, color=MUTED)
        time_ax.set_yticks(list(places), [result["name"] for result in results])
        time_ax.invert_yaxis()
        time_ax.set_xlabel("ms per run-step (line: range; floors: | arithmetic, x bytes)")
        memory_ax.set_xlabel("peak memory (MiB)")
        for ax in (time_ax, memory_ax):
            ax.set_xlim(left=0)
            ax.grid(False, axis="y")
        fig.suptitle(title, fontsize=7, color=INK, x=0.01, ha="left")
        return list(save_figure(fig, path))

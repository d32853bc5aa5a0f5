"""Runs at a glance in a terminal: one line per run, from what the runs write; reads only.

Nothing is locked and no file of a run is opened for writing, so a run never notices.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainrig.config import flatten
from trainrig.files import read_json
from trainrig.report.describers import Metric, Watched, owner
from trainrig.report.records import run_directories
from trainrig.run_status import Progress, observe_status
from trainrig.terminal import print_table
from trainrig.tracking.progress import last_rows, speed

if TYPE_CHECKING:
    from rich.table import Table

QUIET_LOOKS = 5
#: Characters after which a name is broken at the earliest.
NAME_WIDTH = 24
#: Of more runs than a screen holds.
SHOWN_FIRST = ("running", "new", "interrupted", "stopped", "failed", "diverged")
#: Of a run directory that no experiment owns.
UNKNOWN = Watched(metrics=(Metric("train", "loss", "loss"),), total="")


def look(folder: Path) -> list[Progress]:
    """Return where every run at or below ``folder`` is.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a run or a sweep")
    lines = [
        read_line(path, path.name if path == folder else path.relative_to(folder).as_posix())
        for path in run_directories(folder, hidden=True)
    ]
    if not lines:
        raise FileNotFoundError(f"{folder}: no run in it yet; give a run or a sweep")
    return lines


def read_line(path: Path, name: str) -> Progress:
    """Return where the run in ``path`` is."""
    status, config = observe_status(path), _config(path)
    describer = owner(config)
    watched = describer.watched if describer and describer.watched else UNKNOWN
    rows = list(last_rows(path / "logs/progress.txt"))
    counted = [row for row in rows if not watched.splits or row.get("split") in watched.splits]
    counted = [row for row in counted if watched.key in row]
    done = max((int(row[watched.key]) for row in counted), default=int(status.get(watched.unit, 0)))
    total = status.get(f"{watched.unit}s", flatten(config).get(watched.total))
    return Progress(
        path=path,
        name=watched.label(config) if watched.label else name,
        status=status["status"],
        done=done,
        total=total if isinstance(total, int) else None,
        unit=watched.unit,
        per_second=speed(counted, watched.key),
        values=_values(watched, rows, status.get("metrics", {})),
    )


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _values(
    watched: Watched, rows: Sequence[Mapping[str, Any]], final: Mapping[str, Any]
) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric in watched.metrics:
        found = [row for row in rows if row.get("split") == metric.split and metric.key in row]
        row = found[-1] if found else final.get(metric.split, {})
        value = row.get(metric.key)
        if isinstance(value, int | float):
            values[metric.label] = value
    return values


def columns(lines: Sequence[Progress]) -> tuple[list[str], list[list[str]]]:
    """Return headings, the run's name first, and one row of cells per line."""
    metrics = dict.fromkeys(heading for line in lines for heading in line.values)
    rows = []
    for line in lines:
        total = f"/{line.total}" if line.total else ""
        speed = f"{line.per_second:.3g} {line.unit}s/s" if line.per_second else ""
        left = duration(line.seconds_left) if line.seconds_left is not None else ""
        cells = [f"{line.values[h]:.4g}" if h in line.values else "" for h in metrics]
        rows.append([line.name, line.status, f"{line.done}{total}", speed, left, *cells])
    return ["run", "status", "done", "speed", "left", *metrics], rows


def table(lines: Sequence[Progress], width: int, height: int | None = None) -> Table:
    """Return the lines as a rich table of at most ``width`` characters.

    Names are always shown whole, on several lines if need be. Columns on the right that leave no
    room for them are named below the table instead. Of more runs than ``height`` lines hold, those
    at work come first, and the others are counted.
    """
    from rich.markup import escape
    from rich.table import Table

    headings, rows = columns(lines)
    below: list[str] = []
    if height is not None:
        whole = sum(max(len(row[i]) + 2 for row in (headings, *rows)) for i in range(len(headings)))
        name_width = width if whole - 2 <= width else NAME_WIDTH
        heights = [-(-len(line.name) // name_width) for line in lines]
        kept, below = _most_alive(lines, heights, height - 4)
        rows = [rows[i] for i in kept]
    count = _fitting(headings, rows, width)
    shown = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    shown.add_column("run", overflow="fold")
    for heading in headings[1:count]:
        shown.add_column(heading, justify="left" if heading == "status" else "right", no_wrap=True)
    colours = {"running": "cyan", "complete": "green", "failed": "red", "diverged": "red"}
    for name, status, *cells in rows:
        state = f"[{colours.get(status, 'yellow')}]{status}[/]"
        shown.add_row(*[escape(name), state, *map(escape, cells)][:count])
    if count < len(headings):
        below = [*below, f"a wider terminal shows {escape(', '.join(headings[count:]))}"]
    shown.caption = "\n".join(below) or None
    return shown


def _most_alive(
    lines: Sequence[Progress], heights: Sequence[int], room: int
) -> tuple[list[int], list[str]]:
    """Return which lines fit into ``room`` by their heights, and what is said of the others."""
    order = {status: place for place, status in enumerate(SHOWN_FIRST)}
    ranked = sorted(range(len(lines)), key=lambda i: order.get(lines[i].status, len(SHOWN_FIRST)))
    used = list(itertools.accumulate(heights[i] for i in ranked))
    count = max(sum(end <= room for end in used), 1)
    if count == len(lines):
        return list(range(count)), []
    left = Counter(lines[i].status for i in ranked[count:])
    said = ", ".join(f"{n} {status}" for status, n in left.items())
    return sorted(ranked[:count]), [f"and {len(lines) - count} more: {said}"]


def _fitting(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Return how many columns fit beside names that are broken after no less than so many."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    used, count = min(widths[0], NAME_WIDTH), 1
    while count < len(headings) and used + 2 + widths[count] <= width:
        used += 2 + widths[count]
        count += 1
    return count


def duration(seconds: float) -> str:
    """Return a duration as a person says it.

    >>> duration(42), duration(605), duration(7322)
    ('42 s', '10 min 05 s', '2 h 02 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def watch(folder: Path, every_s: float) -> None:
    """Show ``look(folder)`` until no run is at work, or Ctrl-C; once in a pipe.

    Between two runs of a sweep none is at work for a moment, so several quiet looks end it.
    """
    lines = look(folder)
    if not sys.stdout.isatty():
        print_table(*columns(lines))
        return
    from rich.console import Console
    from rich.live import Live

    console, quiet = Console(), QUIET_LOOKS
    with Live(table(lines, *console.size), console=console, auto_refresh=False) as live:
        while True:
            lines = look(folder)
            live.update(table(lines, *console.size), refresh=True)
            at_work = any(line.status in ("running", "new") for line in lines)
            quiet = 0 if at_work else quiet + 1
            if quiet > QUIET_LOOKS:
                return
            time.sleep(every_s)

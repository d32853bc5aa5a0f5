"""Runs at a glance in a terminal: one line per run, from what the runs write; reads only.

Nothing is locked and no file of a run is opened for writing, so a run never notices.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainrig.config import flatten
from trainrig.files import read_json
from trainrig.report.describers import Metric, Watched, owner
from trainrig.report.records import run_directories
from trainrig.run_status import Progress, observe_status
from trainrig.tracking.progress import last_rows, speed

if TYPE_CHECKING:
    from rich.table import Table

QUIET_LOOKS = 5
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


def table(lines: Sequence[Progress]) -> Table:
    """Return the lines as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    headings = dict.fromkeys(heading for line in lines for heading in line.values)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("run", overflow="fold")
    for heading in ("status", "done", "speed", "left", *headings):
        shown.add_column(heading, justify="left" if heading == "status" else "right", no_wrap=True)
    colours = {"running": "cyan", "complete": "green", "failed": "red", "diverged": "red"}
    for line in lines:
        total = f"/{line.total}" if line.total else ""
        speed = f"{line.per_second:.3g} {line.unit}s/s" if line.per_second else ""
        left = duration(line.seconds_left) if line.seconds_left is not None else ""
        colour = colours.get(line.status, "yellow")
        cells = [f"{line.values[h]:.4g}" if h in line.values else "" for h in headings]
        state = f"[{colour}]{line.status}[/]"
        shown.add_row(escape(line.name), state, f"{line.done}{total}", speed, left, *cells)
    return shown


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
    from rich.console import Console
    from rich.live import Live

    console, quiet = Console(), QUIET_LOOKS
    with Live(table(look(folder)), console=console, auto_refresh=False) as live:
        while True:
            lines = look(folder)
            live.update(table(lines), refresh=True)
            at_work = any(line.status in ("running", "new") for line in lines)
            quiet = 0 if at_work else quiet + 1
            if not console.is_terminal or quiet > QUIET_LOOKS:
                return
            time.sleep(every_s)

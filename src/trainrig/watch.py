"""Runs at a glance in a terminal: one line per run, from what the runs write; reads only.

Nothing is locked and no file of a run is opened for writing, so a run never notices.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainrig.config import flatten
from trainrig.files import read_json
from trainrig.report.records import run_directories
from trainrig.run_status import read_status
from trainrig.tracking.progress import parse_line

if TYPE_CHECKING:
    from rich.table import Table

TAIL_BYTES = 64_000  # holds the last rows of every split
QUIET_LOOKS = 5
RATE_ROWS = 20  # the speed is that over the last rows, so that a pause is forgotten
#: Configuration keys that give the steps or epochs to do, where ``status.json`` does not.
TOTAL_KEYS = {"step": ("training_steps", "steps"), "epoch": ("num_epochs", "epochs")}
#: What a line may show, in this order, where a run logs it: split, key, heading.
SHOWN = (
    ("train", "loss", "loss"),
    ("holdout", "accuracy_closed", "in-context"),
    ("no_support", "accuracy_query", "in-weights"),
    ("val", "accuracy", "validation"),
    ("test", "accuracy", "test"),
    ("train", "weight_l2", "|w|"),
    ("train", "grad_l2", "|g|"),
    ("train", "grad_norm", "|g|"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One run at one moment.

    Attributes:
        status: as in ``status.json``; ``stopped`` is a run that no process works on any more.
        done, total: steps, or epochs where these are what the run's end is given in.
        per_second: of the same, over the last rows; None while unknown.
        values: by heading of ``SHOWN``.
    """

    name: str
    status: str
    done: int = 0
    total: int | None = None
    unit: str = "step"
    per_second: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the present speed; None where that cannot be said."""
        if self.status != "running" or not self.total or not self.per_second:
            return None
        return max(self.total - self.done, 0) / self.per_second


def look(folder: Path) -> list[Line]:
    """Return a line per run directory at or below ``folder``.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a run or a sweep")
    lines = [
        read_line(path, path.name if path == folder else path.relative_to(folder).as_posix())
        for path in run_directories(folder)
    ]
    if not lines:
        raise FileNotFoundError(f"{folder}: no run directory in it yet; give a run or a sweep")
    return lines


def read_line(path: Path, name: str) -> Line:
    """Return what is to be seen of the run in ``path``."""
    status = read_status(path)
    rows = list(last_rows(path / "logs/progress.txt"))
    state = status["status"]
    if state == "running" and not is_alive(path):
        state = "stopped"
    unit, total = _end(path, status)
    done = max((int(row[unit]) for row in rows if unit in row), default=int(status.get(unit, 0)))
    values: dict[str, float] = {}
    for split, key, heading in SHOWN:
        found = [row[key] for row in rows if row.get("split") == split and key in row]
        value = found[-1] if found else status.get("metrics", {}).get(split, {}).get(key)
        if isinstance(value, int | float):
            values[heading] = value
    return Line(
        name=name,
        status=state,
        done=done,
        total=total,
        unit=unit,
        per_second=_speed(rows, unit),
        values=values,
    )


def last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last rows of a ``progress.txt`` without reading the whole of a long one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    lines = text.split("\n")[:-1]  # the last one is still being written
    for line in lines[1:] if size > TAIL_BYTES else lines:
        try:
            yield parse_line(line)
        except ValueError:
            continue  # cut back by a resuming process while we read


def is_alive(path: Path) -> bool:
    """Say whether the process that the run's ``.lock`` names is at work; unknown hosts count."""
    try:
        _, pid, _, host = (path / ".lock").read_text().split(maxsplit=3)
    except (OSError, ValueError):
        return False
    if host.strip() != platform.node():
        return True
    try:
        os.kill(int(pid), 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end(path: Path, status: Mapping[str, Any]) -> tuple[str, int | None]:
    if "steps" in status:
        return "step", int(status["steps"])
    try:
        config = flatten(read_json(path / "config.json"))
    except (OSError, ValueError):
        return "step", None
    for unit, keys in TOTAL_KEYS.items():
        for key in keys:
            if isinstance(config.get(key), int):
                return unit, config[key]
    return "step", None


def _speed(rows: Sequence[Mapping[str, Any]], unit: str) -> float | None:
    timed = [row for row in rows if unit in row and "elapsed" in row][-RATE_ROWS:]
    if len(timed) < 2:
        return None
    spent = timed[-1]["elapsed"] - timed[0]["elapsed"]
    gone = timed[-1][unit] - timed[0][unit]
    return gone / spent if spent > 0 and gone > 0 else None


def table(lines: Sequence[Line]) -> Table:
    """Return the lines as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    known = dict.fromkeys(heading for _, _, heading in SHOWN)
    headings = [heading for heading in known if any(heading in line.values for line in lines)]
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

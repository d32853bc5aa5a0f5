"""What the summary of a folder of runs needs: every run that is there, under whatever name.

Several sweeps may write one folder, one after the other or at once. So a summary lists the folder,
not the runs of the call that writes it, and is rebuilt and drawn under the folder's lock.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrig.config import diff, flatten
from trainrig.files import read_json
from trainrig.locks import Held, lock
from trainrig.repeats import setting_key
from trainrig.tracking.tables import Column, read_table


@contextlib.contextmanager
def summary_lock(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only process that writes the summary of ``folder``.

    Of two sweeps in one folder, whoever has the lock last sees every run of both.

    Args:
        folder: of the runs; made if absent.
        wait: for another process; otherwise say False where there is one, which is no fault of a
            summary that is written again later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(folder / ".runs.csv.lock", wait=wait))
            mine = True
        except Held:
            mine = False
        yield mine


def run_configs(
    folder: Path, is_ours: Callable[[Mapping[str, Any]], bool]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the configuration of every run directly in ``folder``, by the run's name.

    Args:
        folder: of the runs.
        is_ours: says of a ``config.json`` whether it is of the experiment that asks.

    Returns:
        Name → ``config.json``, in the order of names; and a message for each that cannot be read.
    """
    found, unread = {}, []
    for file in sorted(folder.glob("*/config.json")):
        try:
            config = read_json(file)
        except (ValueError, OSError) as error:
            unread.append(f"left out: {error}")
            continue
        if isinstance(config, dict) and is_ours(config):
            found[file.parent.name] = config
    return found, unread


def names_in(
    folder: Path, configs: Mapping[str, Mapping[str, Any]], free: Sequence[str] = ()
) -> dict[str, str]:
    """Return under which name ``folder`` holds each run.

    A run is known by its configuration. One that lies there under another name (it was renamed, or
    planned with another file) is that run: it is continued, not trained a second time.

    Args:
        folder: of the runs.
        configs: name → configuration as plain data; further keys there (the device) may differ.
        free: dotted keys that are left out of the comparison, because ``auto`` is settled later.

    Returns:
        Name → the name of the folder that holds the run, or the same name where none does.
    """
    if not configs:
        return {}
    absent = [name for name in configs if not (folder / name / "config.json").exists()]
    if not absent:
        return {name: name for name in configs}
    present, unread = run_configs(folder, lambda _: True)
    warn(unread)
    keys = next(iter(configs.values())).keys()
    known: dict[str, str] = {}
    for name, config in present.items():
        if name not in configs:
            own = {key: config.get(key) for key in keys}
            known.setdefault(_fingerprint(own, free), name)
    return {
        name: known.get(_fingerprint(configs[name], free), name) if name in absent else name
        for name in configs
    }


def in_turn(folder: Path, names: Iterable[str], planned: Collection[str]) -> list[str]:
    """Return runs in the order in which equal ones count: the grid's, then the last that ended."""

    def place(name: str) -> tuple[int, int]:
        status = folder / name / "status.json"
        ended = status.stat().st_mtime_ns if status.exists() else 0
        return (0, 0) if name in planned else (1, -ended)

    return sorted(names, key=place)


def twins(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return which runs are there more than once: name → the name of the one that counts.

    Args:
        configs: name → ``config.json``, in the order in which equal runs count (``in_turn``).
    """
    first: dict[str, str] = {}
    found = {}
    for name, config in configs.items():
        counted = first.setdefault(setting_key(config) or f"run {name}", name)
        if counted != name:
            found[name] = counted
    return found


def _fingerprint(config: Mapping[str, Any], free: Sequence[str]) -> str:
    """Return a text that is equal for equal configurations, but for the ``free`` keys."""
    kept = {key: value for key, value in flatten(config).items() if key not in free}
    return json.dumps(kept, sort_keys=True)


def exact(value: float) -> str:
    """Return the shortest text of a number that no other has, for a folder's name.

    >>> exact(0.1), exact(1.0), exact(1e-05), exact(0.30000000000000004)
    ('0.1', '1', '1e-05', '0.30000000000000004')
    """
    return repr(float(value)).removesuffix(".0")


def differences(
    reference: Mapping[str, Any], config: Mapping[str, Any], free: Sequence[str]
) -> str:
    """Return what sets a run apart from those that a figure compares, ``""`` if nothing does.

    Args:
        reference: ``config.json`` of a run of the grid.
        config: of the run in question.
        free: dotted keys, or sections, that may differ.

    >>> differences({"steps": 9, "seed": 1}, {"steps": 5, "seed": 2}, ["seed"])
    'steps: 9 -> 5'
    """
    lines = [
        line
        for line in diff(reference, config)
        if not any(_within(line.partition(": ")[0], key) for key in free)
    ]
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def contradictions(
    table: Path,
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    own: Mapping[str, Mapping[str, Any]],
    moving: Collection[str],
) -> list[str]:
    """Return where a table of runs says something else than the runs' own files.

    Args:
        table: its path; the runs lie beside it.
        rows: the run's name and the row, of each row of the table.
        own: run → the row that its files give; runs without one are not judged.
        moving: columns that change while a run is at work. They are not compared for a run whose
            files are newer than the table, which has trained further since.
    """
    written = table.stat().st_mtime_ns
    lines = []
    for name, row in rows:
        newer = name in own and _changed_ns(table.parent / name) > written
        for column, value in own.get(name, {}).items():
            if column in row and row[column] != value and not (newer and column in moving):
                said, found = ("empty" if v is None else v for v in (row[column], value))
                lines.append(f"{column} of {name} is {said}, its own files say {found}")
    return lines


def _changed_ns(run: Path) -> int:
    """Return when a run last wrote its status or a checkpoint."""
    files = (run / "status.json", *run.glob("checkpoints/**/"))
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def edited(
    folder: Path,
    own: Callable[[set[str]], Mapping[str, Mapping[str, Any]]],
    moving: Collection[str],
) -> list[str]:
    """Return where the ``runs.csv`` of ``folder`` contradicts its runs, none where there is none.

    Args:
        folder: of the runs; the table's column ``run`` names them.
        own: names of the runs in the grid → the row that each run's files give.
        moving: as for ``contradictions``.
    """
    path = folder / "runs.csv"
    if not path.exists():
        return []
    try:
        rows = [(row["run"], row) for row in read_table(path, {"run": Column(str)})]
        found = own({name for name, row in rows if row.get("in_grid")})
        lines = contradictions(path, rows, found, moving)
    except (ValueError, LookupError, TypeError, OSError) as error:
        return [f"{path}: cannot be compared with its runs ({error})"]
    return [f"{path.name}: {line}" for line in lines]


def left_out_text(differing: Sequence[str]) -> str:
    """Return what a figure says of the runs that it leaves out, ``""`` for none.

    >>> left_out_text(["steps: 9 -> 5", "steps: 9 -> 5", "running at step 3"])
    'not shown: 2 runs (steps: 9 -> 5), 1 run (running at step 3)'
    """
    if not differing:
        return ""
    counts = Counter(differing)
    parts = [f"{n} run{'s' if n > 1 else ''} ({why})" for why, n in counts.most_common(3)]
    rest = len(differing) - sum(n for _, n in counts.most_common(3))
    return f"not shown: {', '.join(parts)}" + (f" and {rest} more" if rest else "")


def warn(messages: Iterable[str]) -> None:
    """Print messages on stderr, a line each."""
    for message in messages:
        print(message, file=sys.stderr)  # noqa: T201 - what it is for

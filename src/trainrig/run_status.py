"""How far a run is, or how it ended; imports no torch, so that watching is light."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrig.files import read_json
from trainrig.processes import number_is_running

#: Statuses of a run that will not continue.
FINAL = ("complete", "diverged")
#: What the keys of ``status.json`` hold, where they are there.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "status": (str,),
    "metrics": (dict,),
    **dict.fromkeys(("step", "steps", "epoch", "epochs"), (int, float, type(None))),
}


def read_status(path: Path) -> dict[str, Any]:
    """Return a run's status; an absent file means ``new``, an unreadable one ``failed``."""
    try:
        status = read_json(path / "status.json")
    except FileNotFoundError:
        return {"status": "new"}
    except ValueError as error:
        return {"status": "failed", "message": str(error)}
    file = path / "status.json"
    if not isinstance(status, dict) or "status" not in status:
        return {"status": "failed", "message": f"{file}: holds no status"}
    for key, kinds in _KINDS.items():
        if key in status and not isinstance(status[key], kinds):
            message = f"{file}: damaged, {key} is {status[key]!r}"
            return {"status": "failed", "message": message}
    return status


def has_ended(path: Path, length: int | None = None) -> bool:
    """Say whether nothing is left to do for a run.

    Args:
        path: its directory.
        length: what it is to have, in steps or epochs, as its status counts; a complete run that
            is shorter has not ended.
    """
    status = read_status(path)
    if status["status"] == "complete" and length is not None:
        return int(status.get("step", status.get("epoch", length))) >= length
    return status["status"] in FINAL


def observe_status(path: Path) -> dict[str, Any]:
    """Return a run's status as seen from outside: ``running`` without a process is ``stopped``."""
    status = read_status(path)
    stopped = status["status"] == "running" and not is_alive(path)
    return {**status, "status": "stopped"} if stopped else status


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """How a run ended: what ``run(config)`` of every experiment returns.

    Attributes:
        path: its directory, or its result file; None where it was asked to write nothing.
        status: ``complete`` or ``diverged``.
        step: how many of ``counts`` were completed.
        counts: ``step`` or ``epoch``.
        metrics: last values by split, e.g. ``metrics["holdout"]["accuracy_closed"]``; None is a
            value that is not finite.
        message: why it diverged, or that there was nothing to do.

    >>> RunResult(path=Path("runs/one"), status="complete", metrics={"test": {"loss": 0.5}}).ok
    True
    """

    path: Path | None
    status: str
    step: int = 0
    counts: str = "step"
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the run came to its end with finite numbers."""
        return self.status == "complete"


def read_result(path: Path) -> RunResult:
    """Return how the run in the directory ``path`` ended, or stands, from its ``status.json``."""
    status = read_status(path)
    counts = "epoch" if "epoch" in status else "step"
    return RunResult(
        path=path,
        status=status["status"],
        step=status.get(counts, 0),
        counts=counts,
        metrics=status.get("metrics", {}),
        message=status.get("message", ""),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One run at one moment.

    Attributes:
        path: the run's directory.
        name: what it is called.
        status: as in ``status.json``; ``stopped`` is a run that no process works on any more.
        done, total: steps, or epochs where these are what the run's end is given in.
        unit: which of the two.
        per_second: of the same, over the last rows; None while unknown.
        values: by heading.
    """

    path: Path
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


def this_process() -> str:
    """Return what a run's ``.lock`` says of the process at work."""
    return f"pid {os.getpid()} on {platform.node()}"


def is_alive(path: Path) -> bool:
    """Say whether the process that the run's ``.lock`` names is at work; unknown hosts count."""
    try:
        _, pid, _, host = (path / ".lock").read_text().split(maxsplit=3)
    except (OSError, ValueError):
        return False
    if host.strip() != platform.node():
        return True
    return pid.isdecimal() and number_is_running(int(pid))

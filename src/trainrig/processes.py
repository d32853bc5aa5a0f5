"""Which process this is: of a run that ``torchrun`` started, and of all; imports no torch."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path


def process_count() -> int:
    """Return how many processes train this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return this process's number; 0 leads."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def alone(what: str) -> str:
    """Return the sentence that refuses several processes where one is expected."""
    return (
        f"{what}: works in one process, and torchrun started {process_count()} (WORLD_SIZE); "
        "start it with python"
    )


def process_key() -> str:
    """Return ``<place>-<pid>-<start>``: no other process has this key, on any host, at any time.

    The place stands for the host, its boot and the process namespace (a container's), within which
    a process number means one process; the start tells apart processes that had the same number.
    """
    pid = os.getpid()
    return f"{_place()}-{pid}-{_started(pid) or 0}"


def is_running(key: str) -> bool | None:
    """Say whether the process of that key is at work; None if it cannot be seen from here."""
    place, pid, start = key.split("-")
    if place != _place():
        return None
    if not number_is_running(int(pid)):
        return False
    now = _started(int(pid))  # None where /proc is hidden or absent: then the number must do
    return now is None or start in ("0", str(now))


def number_is_running(pid: int) -> bool:
    """Say whether there is a process of that number here that has not ended."""
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return _status(pid)[:1] != ["Z"]  # ended, though its parent has not asked how


def _started(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine's boot."""
    fields = _status(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _status(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` from the third, the state, on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the second is a name that may hold anything


@functools.cache
def _place() -> str:
    parts = [platform.node()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

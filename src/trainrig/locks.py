"""Locks between processes, on file systems with ``flock`` and without.

``flock`` dies with its process and is used wherever the file system knows it. Some network and
FUSE file systems answer ENOSYS, ENOLCK or EOPNOTSUPP. There each process that wants the lock makes
a file of its own beside it, named after the process, and then looks for the files of others: who
sees another's withdraws. Two that come at the same moment may both withdraw, but never both hold
the lock. The file of a process that was killed counts no longer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import math
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainrig.processes import is_running, process_key

_WITHOUT_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
#: Seconds after which who waits takes a holder that it cannot see (on another host) for dead: what
#: is waited for is held for moments only.
PATIENCE_S = 600.0
_numbers = itertools.count()
_open: set[Any] = set()


class Held(Exception):  # noqa: N818 - an answer
    """Another process holds the lock; the text says which."""


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = False, owner: str = "") -> Iterator[None]:
    """Hold the lock of the file ``path``, which is made if absent; it dies with the process.

    Args:
        path: the lock file.
        wait: until the lock is free, instead of raising ``Held``.
        owner: what the file says of the holder, for readers and for ``Held``.

    Raises:
        Held: another process has it.
        OSError: the folder cannot be written.
    """
    with path.open("a+") as file, contextlib.ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held.callback(fcntl.flock, file, fcntl.LOCK_UN)
            _open.add(file)
            held.callback(_open.discard, file)
        except BlockingIOError:
            raise Held(_owner(path)) from None
        except OSError as error:
            if error.errno not in _WITHOUT_FLOCK:
                raise OSError(error.errno, error.strerror, str(path)) from None
            held.enter_context(_by_files(path, wait))
        if owner:
            file.truncate(0)
            file.write(owner)
            file.flush()
        yield


@contextlib.contextmanager
def _by_files(path: Path, wait: bool) -> Iterator[None]:
    own = path.with_name(f"{path.name}.{process_key()}-{next(_numbers)}.held")
    while True:
        own.touch(exist_ok=False)
        try:
            other = _other(path, own, PATIENCE_S if wait else math.inf)
            if other is None:
                yield
                return
            if not wait:
                raise Held(_described(path, other))
        finally:
            own.unlink(missing_ok=True)
        time.sleep(random.Random(own.name + str(time.monotonic())).uniform(0.01, 0.05))


def _other(path: Path, own: Path, patience_s: float) -> Path | None:
    """Return the file of another holder, or of one that asks; remove those of dead ones."""
    pattern = re.compile(re.escape(path.name) + r"\.(?P<key>[0-9a-f]{12}-\d+-\d+)-\d+\.held")
    for name in sorted(os.listdir(path.parent)):
        match = pattern.fullmatch(name)
        if match is None or name == own.name:
            continue
        file = path.parent / name
        running = is_running(match["key"])
        if running is False or (running is None and _age_s(file) > patience_s):
            file.unlink(missing_ok=True)
        else:
            return file
    return None


def _age_s(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _described(path: Path, other: Path) -> str:
    key = other.name.removeprefix(f"{path.name}.")
    if is_running("-".join(key.split("-")[:3])) is None:
        return f"{_owner(path)}; if none is at work any more, remove {other}"
    return _owner(path)


def _owner(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"


def _forget() -> None:
    """In a forked child: close the parent's locks, or they would outlive a killed parent."""
    for file in _open:
        file.close()
    _open.clear()


os.register_at_fork(after_in_child=_forget)

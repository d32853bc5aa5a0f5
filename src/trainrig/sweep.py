"""Many runs: in this process one after the other, or several worker processes side by side.

A run that fails or diverges is an outcome; the others go on. Workers die with their parent, so that
a killed sweep leaves nothing behind that still writes.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrig.cli import USER_ERRORS, describe


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One run of a sweep.

    Attributes:
        name: shown to the user.
        path: the run directory.
        work: a picklable, module-level function ``work(position=..., **arguments) -> str`` that
            trains the run and returns its final status.
        arguments: picklable keyword arguments of ``work``.
    """

    name: str
    path: Path
    work: Callable[..., str]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: ``complete``, ``diverged`` or ``failed`` with a message."""

    name: str
    path: Path
    status: str
    message: str = ""


def run_tasks(tasks: Sequence[Task], *, jobs: int = 1) -> Iterator[Outcome]:
    """Run all tasks, ``jobs`` at a time, yielding outcomes as they come.

    Args:
        tasks: independent of each other.
        jobs: worker processes; 1 runs everything in this process.

    Raises:
        ValueError: ``jobs`` below 1.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    if jobs == 1 or len(tasks) <= 1:
        for task in tasks:
            yield _perform(task)
        return
    context = multiprocessing.get_context("spawn")
    slots = context.Queue()
    for slot in range(1, jobs + 1):
        slots.put(slot)
    from tqdm import tqdm

    lock = context.RLock()
    tqdm.set_lock(lock)
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(os.getpid(), slots, lock),
    )
    try:
        futures = {pool.submit(_perform, task): task for task in tasks}
        for future in as_completed(futures):
            task = futures[future]
            try:
                yield future.result()
            except Exception as error:
                message = f"the worker process died ({describe(error)})"
                yield Outcome(task.name, task.path, "failed", message)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((pool._processes or {}).values()):
            process.terminate()


_position = 0


def _start_worker(parent: int, slots: Any, lock: Any) -> None:
    """Tie this worker to its parent and give its progress bar a line of its own."""
    global _position
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides on Ctrl-C
    from tqdm import tqdm

    tqdm.set_lock(lock)
    _position = slots.get()


def _perform(task: Task) -> Outcome:
    try:
        status = task.work(position=_position, **task.arguments)
    except USER_ERRORS as error:
        return Outcome(task.name, task.path, "failed", describe(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome(task.name, task.path, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task.name, task.path, status)

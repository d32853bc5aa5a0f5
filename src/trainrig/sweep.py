"""Many runs: in this process one after the other, or several worker processes side by side.

A run that fails or diverges is an outcome; the others continue. Workers die with their parent, so
that a killed sweep leaves nothing behind that still writes. A sweep that is asked to stop asks its
workers to, and waits for their checkpoints.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrig.cli import USER_ERRORS, describe
from trainrig.run_status import FINAL
from trainrig.streams import outlive_readers

#: Seconds for workers to finish their steps; schedulers kill 30 s after their SIGTERM.
STOP_PATIENCE_S = 25.0


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


def failures(outcomes: Sequence[Outcome]) -> str:
    """Return how many runs have not come to their end and why the first has not; "" for none.

    >>> failures([Outcome(name, Path(name), "failed", "no images") for name in "ab"])
    'all 2 runs failed; a: no images'
    """
    failed = [outcome for outcome in outcomes if outcome.status not in FINAL]
    if not failed:
        return ""
    first = failed[0]
    word = "failed" if all(outcome.status == "failed" for outcome in failed) else "did not end"
    count = f"{len(failed)} of {len(outcomes)} runs"
    if len(failed) == len(outcomes):
        count = "the run" if len(failed) == 1 else f"all {len(failed)} runs"
    return f"{count} {word}; {first.name}: {first.message or first.status}"


def refuse_if_all_failed(outcomes: Sequence[Outcome]) -> None:
    """Say why the first run failed where all did: there is nothing to tabulate or draw.

    Raises:
        ValueError: no run has come to its end.
    """
    if outcomes and all(outcome.status not in FINAL for outcome in outcomes):
        raise ValueError(failures(outcomes))


class Paced:
    """Repeats something that grows with the sweep, in a small share of the sweep's time.

    What is called after each of N runs and looks at all N would cost O(N²). Called through this, a
    call of t seconds is followed by a pause of at least ``t (1 / SHARE - 1)``.
    """

    SHARE = 0.05

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call, self._next = call, -math.inf

    def __call__(self) -> None:
        """Make the call unless it is too early for it."""
        started = time.monotonic()
        if started >= self._next:
            self.call()
            ended = time.monotonic()
            self._next = ended + (ended - started) * (1 / self.SHARE - 1)


def run_tasks(
    tasks: Sequence[Task], *, jobs: int = 1, gpus: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Run all tasks, ``jobs`` at a time, yielding outcomes as they come.

    Args:
        tasks: independent of each other.
        jobs: worker processes; 1 runs everything in this process.
        gpus: which the worker processes are spread over, each seeing one; empty: each sees all.

    Raises:
        ValueError: ``jobs`` below 1.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            yield perform(task)
        return
    yield from _run_side_by_side(tasks, jobs, gpus)


def _run_side_by_side(tasks: Sequence[Task], jobs: int, gpus: Sequence[str]) -> Iterator[Outcome]:
    """Keep ``jobs`` tasks in flight; a worker that dies breaks its pool, so a new one continues."""
    waiting = deque(tasks)
    while waiting:
        suspects = yield from _run_until_broken(waiting, jobs, gpus)
        if len(suspects) == 1:
            task, message = suspects[0]
            yield Outcome(task.name, task.path, "failed", f"the worker process died ({message})")
            continue
        for task, _ in suspects:  # alone, each shows whether it was the one; the others resume
            yield from _run_side_by_side([task], 1, gpus)


def _run_until_broken(
    waiting: deque[Task], jobs: int, gpus: Sequence[str]
) -> Generator[Outcome, None, list[tuple[Task, str]]]:
    """Take tasks from ``waiting``; return those in flight when a worker died, with the reason."""
    flying: dict[Future[Outcome], Task] = {}
    with _pool(min(jobs, len(waiting)), gpus) as pool:
        while waiting or flying:
            while waiting and len(flying) < jobs:
                task = waiting.popleft()
                flying[pool.submit(perform, task)] = task
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            broken = {f: e for f in done if isinstance(e := f.exception(), BrokenExecutor)}
            for future in done.difference(broken):
                yield future.result()
                del flying[future]
            if broken:
                reason = describe(next(iter(broken.values())))
                return [(task, reason) for task in flying.values()]
    return []


@contextlib.contextmanager
def _pool(jobs: int, gpus: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    slots, lock = context.Queue(), context.RLock()
    for slot in range(1, jobs + 1):
        slots.put((slot, gpus[(slot - 1) % len(gpus)] if gpus else None))
    tqdm.set_lock(lock)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start_worker, initargs=(os.getpid(), slots, lock)
    )
    try:
        yield pool
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()  # a run ends after its step, see trainrig.stopping
        deadline = time.monotonic() + STOP_PATIENCE_S
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))


_position = 0


def _start_worker(parent: int, slots: Any, lock: Any) -> None:
    """Tie this worker to its parent and give its progress bar a line of its own."""
    global _position
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides on Ctrl-C
    outlive_readers()
    from tqdm import tqdm

    tqdm.set_lock(lock)
    _position, gpu = slots.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used


def perform(task: Task) -> Outcome:
    """Carry out one task in this process.

    Raises:
        Interruption: it was asked to stop; that is no outcome.
    """
    try:
        status = task.work(position=_position, **task.arguments)
    except USER_ERRORS as error:
        return Outcome(task.name, task.path, "failed", describe(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome(task.name, task.path, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task.name, task.path, status)

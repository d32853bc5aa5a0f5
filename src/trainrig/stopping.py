"""Stopping on request: a run ends after its current step, with a checkpoint, and says how.

What asks: SIGTERM (an operator, a scheduler that takes the node back), SIGHUP (the terminal was
closed), SIGUSR1 (a scheduler that will run the job again), or the end of the time that the job was
given. The training loop looks at ``StopRequest.due()`` between two steps; outside a run a signal
stops the process at once, as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

#: Exit status after SIGTERM: the shell's convention, 128 + 15.
EXIT_TERMINATED = 143
#: Exit status of a job that wants to be run again: SLURM's custom, ``RequeueExit=85``.
EXIT_REQUEUE = 85
#: Exit status after SIGHUP: 128 + 1.
EXIT_HUNG_UP = 129
EXIT_CODES = {
    signal.SIGTERM: EXIT_TERMINATED,
    signal.SIGHUP: EXIT_HUNG_UP,
    signal.SIGUSR1: EXIT_REQUEUE,
}
#: Seconds that must remain of a job's time beyond those that its slowest steps took.
RESERVE_S = 15.0


class Interruption(BaseException):
    """A run that was asked to stop, and did; like ``KeyboardInterrupt``, it is no error.

    Attributes:
        exit_code: of the process, one of ``EXIT_CODES``.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)


class StopRequest:
    """Whether a run was asked to stop; ``due`` is called once after every step.

    Args:
        end_time: when the process will be ended, seconds since 1970; None if nobody says.
    """

    def __init__(self, end_time: float | None = None) -> None:
        self.end_time, self.reason, self.exit_code = end_time, "", 0
        self._last, self._longest = 0.0, 0.0

    def receive(self, number: int, _: Any = None) -> None:
        """Take a signal; the first one decides."""
        if not self.reason:
            self.reason = signal.Signals(number).name
            self.exit_code = EXIT_CODES[signal.Signals(number)]

    def due(self) -> bool:
        """Say whether to stop now; with an end time, also before another slow step would meet it.

        Between two calls lie a step and whatever was logged, evaluated and saved after it; three
        times the longest such interval is kept in reserve.
        """
        if self.end_time is not None:
            now = time.monotonic()
            self._longest = max(self._longest, now - self._last) if self._last else 0.0
            self._last, left = now, self.end_time - time.time()
            if not self.reason and left < RESERVE_S + 3 * self._longest:
                self.reason = f"{max(left, 0):.0f} s before the end of the job's time"
                self.exit_code = EXIT_REQUEUE
        return bool(self.reason)

    def join(self, exit_code: int) -> bool:
        """Stop with the status that a process of the same run ends with; 0 continues."""
        if exit_code and not self.reason:
            self.reason, self.exit_code = "another process of the run was asked to", exit_code
        return bool(exit_code)

    def interruption(self, where: str) -> Interruption:
        """Return what to raise once the checkpoint is written."""
        return Interruption(f"{where}: stopped ({self.reason})", self.exit_code)


@contextlib.contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Within, the signals of ``EXIT_CODES`` only set the yielded request (in the main thread)."""
    if _shared:
        yield _shared[-1]
        return
    request = StopRequest(job_end_time())
    with _handlers(request.receive):
        yield request


_shared: list[StopRequest] = []


@contextlib.contextmanager
def shared_stop() -> Iterator[None]:
    """Within, every ``graceful_stop`` yields one request: a signal reaches all runs at work."""
    with graceful_stop() as request:
        _shared.append(request)
        try:
            yield
        finally:
            _shared.pop()


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Within, and outside any ``graceful_stop``, the same signals raise ``Interruption``."""

    def stop(number: int, _: Any) -> None:
        name = signal.Signals(number)
        raise Interruption(f"stopped ({name.name})", EXIT_CODES[name])

    with _handlers(stop):
        yield


@contextlib.contextmanager
def _handlers(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in _heard()}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _heard() -> list[signal.Signals]:
    """Return the signals to listen to: all, but for a SIGHUP that ``nohup`` has this one ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in EXIT_CODES if number != signal.SIGHUP or not ignored]


def job_end_time(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return when this job's time is over, seconds since 1970; None if unlimited or unknown.

    Source: ``TRAINRIG_END_TIME`` or ``SLURM_JOB_END_TIME`` (seconds since 1970); within an older
    SLURM, its queue.
    """
    for name in ("TRAINRIG_END_TIME", "SLURM_JOB_END_TIME"):
        with contextlib.suppress(KeyError, ValueError):
            return float(environment[name])
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%e"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return datetime.fromisoformat(answer.stdout.split()[0]).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None

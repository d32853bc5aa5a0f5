"""What a launcher and its jobs tell each other, in files: who was launched, how each job ended.

<sweep>/.launch/record.json            launcher, and the scheduler's id of each task's job
<sweep>/.launch/outcomes/<task>.json   written by the job at its end
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainrig.files import read_json, write_json
from trainrig.runs import FINAL, read_status
from trainrig.sweep import Outcome, Task, perform

#: Seconds between two looks at the outcomes, and between two at the scheduler's queue.
POLL_S, QUEUE_POLL_S = 0.2, 2.0


class JobFolder:
    """The folder through which a launcher and its jobs communicate."""

    def __init__(self, path: Path) -> None:
        self.path, self.outcomes = path, path / "outcomes"

    def begin(self, tasks: Sequence[Task]) -> None:
        """Forget how the jobs of these tasks ended before."""
        self.outcomes.mkdir(parents=True, exist_ok=True)
        for task in tasks:
            self._file(task.name).unlink(missing_ok=True)

    def set_record(self, launcher: str, jobs: Mapping[str, str], **fields: Any) -> None:
        """Note the scheduler's id of each task's job."""
        write_json(self.path / "record.json", {"launcher": launcher, "jobs": dict(jobs), **fields})

    def record(self) -> dict[str, Any] | None:
        """Return what ``set_record`` noted; None if nothing was launched from here."""
        file = self.path / "record.json"
        return read_json(file) if file.exists() else None

    def write_outcome(self, outcome: Outcome) -> None:
        """Note how a task ended, atomically."""
        write_json(self._file(outcome.name), {**asdict(outcome), "path": str(outcome.path)})

    def ended(self) -> set[str]:
        """Return the file stems of the tasks that ended."""
        return {file.stem for file in self.outcomes.glob("[!.]*.json")}

    def read_outcome(self, stem: str) -> Outcome:
        """Return how a task ended, by its file's stem."""
        fields = read_json(self.outcomes / f"{stem}.json")
        return Outcome(**{**fields, "path": Path(fields["path"])})

    def _file(self, name: str) -> Path:
        return self.outcomes / f"{file_stem(name)}.json"


def file_stem(name: str) -> str:
    """Return a file's stem for a task; the name of a pack may be longer than a file's.

    >>> file_stem("class100_wd0")
    'class100_wd0'
    """
    if re.fullmatch(r"[\w.=-]{1,100}", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.=-]+", "_", name)[:80]
    return f"{readable}_{digest}"


def perform_job(task: Task, folder: JobFolder) -> Outcome:
    """Carry out a task inside its job and note how it ended.

    Raises:
        Interruption: asked to stop; nothing is noted, because the job may be run again.
    """
    outcome = perform(task)
    folder.write_outcome(outcome)
    return outcome


def follow(
    tasks: Sequence[Task], folder: JobFolder, queued: Callable[[], set[str] | None]
) -> Iterator[Outcome]:
    """Yield the outcome of each task as its job notes it, or as it leaves the queue without.

    Args:
        tasks: launched before.
        folder: where their jobs write.
        queued: names of the tasks whose jobs wait or run; None if the scheduler does not answer.
    """
    waiting = {file_stem(task.name): task for task in tasks}
    suspects: set[str] = set()
    asked = time.monotonic()
    while waiting:
        started = time.monotonic()
        ended = folder.ended()
        # The longer the list of outcomes, the rarer the looks: a tenth of the time at most.
        pause = max(POLL_S, 9 * (time.monotonic() - started))
        for name in ended & waiting.keys():
            del waiting[name]
            yield folder.read_outcome(name)
        if waiting and time.monotonic() - asked >= QUEUE_POLL_S:
            answer, asked = queued(), time.monotonic()
            gone = set() if answer is None else waiting.keys() - set(map(file_stem, answer))
            # A job may end between the two looks, so it counts as lost when it is gone twice.
            for name in (gone & suspects) - folder.ended():
                yield _lost(waiting.pop(name))
            suspects = gone
        time.sleep(pause if waiting else 0)


def _lost(task: Task) -> Outcome:
    """Return the outcome of a job that left the queue without a word, by its run's own status."""
    status = read_status(task.path)
    if status["status"] in (*FINAL, "interrupted"):
        return Outcome(task.name, task.path, status["status"], status.get("message", ""))
    message = f"its job left the queue without an outcome (the run's status is {status['status']})"
    return Outcome(task.name, task.path, "failed", message)

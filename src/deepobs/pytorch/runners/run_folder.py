"""The folder of a run at work: locked, resumed, its checkpoints, and the result that ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from deepobs.pytorch.runners import results
from deepobs.pytorch.runners.naming import result_name
from deepobs.pytorch.runners.session import Session, peak_memory_bytes
from deepobs.pytorch.runners.settings import RunSettings
from trainrig.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    save_checkpoint,
)
from trainrig.optim.needs import needs_of
from trainrig.runs import FINAL, LATEST, RunDirectory, describe_environment, open_run, read_status
from trainrig.tracking.metric_log import MetricLog

logger = logging.getLogger(__name__)
#: Columns of ``logs/progress.txt``.
COLUMNS = ("step", "split", "loss", "accuracy", "elapsed")


@dataclasses.dataclass(frozen=True, slots=True)
class OpenSession:
    """A session with its folder: ``save`` writes a checkpoint, ``finish`` the result."""

    session: Session
    save: Callable[[], None]
    finish: Callable[[], dict[str, Any]]


@contextlib.contextmanager
def open_session(
    settings: RunSettings,
    folder: Path,
    session: Session,
    say: Callable[[str], None],
    **engine: Any,
) -> Iterator[OpenSession]:
    """Lock a run's folder and yield its session, where its last checkpoint left it.

    Args:
        settings: of the run.
        folder: where its result goes.
        session: at its start.
        say: receives console lines.
        engine: what else a checkpoint must agree with, beyond the settings.
    """
    work = folder / f".random_seed__{settings.random_seed}"
    plain = results.strict(settings.to_dict() | engine)
    device = str(next(session.problem.net.parameters()).device)
    environment = describe_environment("deepobs", device=device, threads=torch.get_num_threads())
    environment |= {"optimizer": needs_of(session.optimizer).describe()}
    options: dict[str, Any] = {"overwrite": _starts_anew(work), "start_over": f"remove {work}"}
    with open_run(work, plain, environment, **options) as directory:
        log = MetricLog(directory.logs, COLUMNS)
        session.log, session.stop = log, directory.stop
        _resume(session, directory, say)
        directory.set_status("running", epoch=session.epoch)

        def save() -> None:
            done = session.epoch * len(session.problem.data.train) + session.step
            save_checkpoint(directory.checkpoints, done, session.weights(), session.state())

        def finish() -> dict[str, Any]:
            output = make_output(settings, session)
            path = folder / result_name(settings.random_seed)
            results.write_output(path, output)
            log.close()
            directory.set_status(session.status, epoch=session.epoch, result=path.name)
            _remove_checkpoints(directory)
            return results.strict(output)

        try:
            yield OpenSession(session, save, finish)
        except BaseException as error:
            directory.record_stop(error, epoch=session.epoch)
            raise


def make_output(settings: RunSettings, session: Session) -> dict[str, Any]:
    """Return a finished session's result."""
    device = next(session.problem.net.parameters()).device
    timing = dict(session.timing)
    timing["total_seconds"] = sum(sum(values) for values in timing.values())
    timing["pack"] = session.pack
    timing["peak_memory_bytes"] = peak_memory_bytes(device)
    return results.make_output(settings, session.curves, session.status, timing, device)


def _resume(session: Session, directory: RunDirectory, say: Callable[[str], None]) -> None:
    checkpoint, ignored = latest_checkpoint(
        directory.checkpoints, next(session.problem.net.parameters()).device
    )
    for message in ignored:
        logger.warning("%s; continuing from the one before", message)
    if checkpoint is None:
        assert session.log is not None  # opened with the folder
        session.log.truncate({})
    else:
        session.restore(checkpoint.weights, checkpoint.state)
        say(f"Resuming in epoch {session.epoch} after step {session.step}")


def _starts_anew(work: Path) -> bool:
    """Say whether earlier work is finished, or has nothing yet to continue from."""
    return read_status(work)["status"] in FINAL or not list_checkpoints(work / LATEST)


def _remove_checkpoints(directory: RunDirectory) -> None:
    shutil.rmtree(directory.path / "checkpoints", ignore_errors=True)

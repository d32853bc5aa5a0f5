"""``train.log``: what happened to a run, in words and with the time of day."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log file that a full disk may silence, but that never prints a traceback for it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: the record of the run is elsewhere, and its writer reports the disk."""


@contextlib.contextmanager
def run_log(path: Path) -> Iterator[logging.Logger]:
    """Yield a logger that appends to ``path``, ``<run>/logs/train.log``."""
    logger = logging.getLogger(f"trainrig.run.{path.parent.parent.name}")
    logger.setLevel(logging.INFO)
    handler = _LogFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()

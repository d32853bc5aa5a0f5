"""Standard output and error that may lose their reader, or never had one.

A run does not end because nobody reads what it prints: output that is closed from the start
(``>&-``), whose reader has gone (``| head -1``), or whose terminal was shut is dropped, and the
exit status says how the work went. On a full disk standard output ends the work, since it may be
the result; messages on standard error are dropped.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO, cast

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Outliving(io.FileIO):
    """A stream's file that drops what nobody can read any more."""

    was_terminal = False
    title = ""

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return len(memoryview(content).cast("B"))
        except OSError as error:
            unread = error.errno == errno.EIO and self.was_terminal
            if unread or (error.errno in FULL and self.title == "standard error"):
                return len(memoryview(content).cast("B"))
            raise OSError(error.errno, error.strerror, self.title) from None


def outlive_readers() -> None:
    """Let standard output and error of this process drop what has no reader; repeatable."""
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif stream is getattr(sys, f"__{name}__"):
            outliving = _outliving(stream)
            setattr(sys, name, outliving)
            setattr(sys, f"__{name}__", outliving)


def _fill_closed() -> None:
    """Open the null device in place of closed standard streams.

    The next file to be opened, a run's log perhaps, would get a closed stream's number, and with it
    everything that libraries and child processes print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(number, True)


def _outliving(stream: TextIO) -> TextIO:
    """Return ``stream`` on a file that outlives its readers; others than a plain file stay."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # the same under PYTHONUNBUFFERED
    if type(raw) is not io.FileIO:
        return stream
    stream.flush()
    text = cast("io.TextIOWrapper", stream)
    file = _Outliving(raw.fileno(), "w", closefd=False)
    file.was_terminal = text.isatty()
    file.title = "standard error" if file.fileno() == 2 else "standard output"
    return io.TextIOWrapper(
        cast("io.BufferedWriter", file) if raw is buffer else io.BufferedWriter(file),
        encoding=text.encoding,
        errors=text.errors,
        line_buffering=text.line_buffering,
        write_through=text.write_through,
    )

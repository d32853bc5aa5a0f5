"""``progress.txt``: one ``key=value`` line per log event, for people and programs alike.

    step=100 split=train loss=7.391 accuracy_query=0.0 lr=7.5e-06 elapsed=1.93

Numbers are written so that reading gives back the same bits: integers without a point, floats in
Python's shortest exact form (``nan``, ``inf`` and ``-inf`` included). Everything else is a word.
"""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Value = int | float | str

_KEY = re.compile(r"[A-Za-z_][\w./-]*\Z")
_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?\Z", re.ASCII)
_NOT_FINITE = ("nan", "inf", "-inf")

TAIL_BYTES = 64_000  # holds the last rows of every split
RATE_ROWS = 20  # the speed is that over the last rows, so that a pause is forgotten


def format_line(row: Mapping[str, Any]) -> str:
    """Return ``row`` as one line without its line end, keys in the mapping's order.

    Args:
        row: names to integers, floats (NumPy's too) or words without spaces.

    Raises:
        ValueError: the row is empty, a name holds a space or ``=``, or a value is neither a number
            nor a word, or is a word that would read back as a number.

    >>> format_line({"step": 100, "split": "train", "loss": 0.1})
    'step=100 split=train loss=0.1'
    """
    if not row:
        raise ValueError("progress line: the row is empty; at least one key=value is expected")
    return " ".join(
        f"{_checked_key(key)}={_format_value(key, value)}" for key, value in row.items()
    )


def parse_line(line: str) -> dict[str, Value]:
    """Return the values of one line, exactly as ``format_line`` was given them.

    Raises:
        ValueError: the line is empty, a part is not ``key=value``, or a key occurs twice.

    >>> parse_line("step=100 split=train loss=0.1")
    {'step': 100, 'split': 'train', 'loss': 0.1}
    """
    row: dict[str, Value] = {}
    for part in line.split():
        key, equals, text = part.partition("=")
        if not (equals and text and _KEY.match(key)):
            raise ValueError(f"progress line: {part!r} is not key=value")
        if key in row:
            raise ValueError(f"progress line: key {key!r} occurs twice; once is expected")
        row[key] = _parse_value(text)
    if not row:
        raise ValueError("progress line: empty; key=value pairs separated by spaces are expected")
    return row


def read_progress(path: Path | str) -> list[dict[str, Value]]:
    """Return every line of a ``progress.txt``, oldest first.

    A last line without its line end is still being written and is left out, so that the file of a
    run in progress can be read at any moment.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is malformed; the message names file and line number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such progress file; give a run's logs/progress.txt"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; lines of key=value are expected") from None
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            rows.append(parse_line(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return rows


def last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last rows of a ``progress.txt`` without reading the whole of a long one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    lines = text.split("\n")[:-1]  # the last one is still being written
    for line in lines[1:] if size > TAIL_BYTES else lines:
        try:
            yield parse_line(line)
        except ValueError:
            continue  # cut back by a resuming process while we read


def speed(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return units per second over the last rows that have a time; None where that is unknown."""
    timed = [row for row in rows if "elapsed" in row][-RATE_ROWS:]
    if len(timed) < 2:
        return None
    spent = timed[-1]["elapsed"] - timed[0]["elapsed"]
    gone = timed[-1][key] - timed[0][key]
    return gone / spent if spent > 0 and gone > 0 else None


def _checked_key(key: str) -> str:
    if not (isinstance(key, str) and _KEY.match(key)):
        raise ValueError(
            f"progress line: bad key {key!r}; letters, digits and _ . / - are expected"
        )
    return key


def _format_value(key: str, value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))
    if isinstance(value, str) and value and not any(c.isspace() for c in value):
        if isinstance(_parse_value(value), str):
            return value
        raise ValueError(f"progress line: {key} is the word {value!r}, which reads as a number")
    raise ValueError(
        f"progress line: {key} is {value!r}; a number or a word without spaces is expected"
    )


def _parse_value(text: str) -> Value:
    if _INTEGER.match(text):
        return int(text)
    if text in _NOT_FINITE or _FLOAT.match(text):
        return float(text)
    return text

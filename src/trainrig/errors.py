"""The project's own error types, and the "did you mean" of every message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete, corrupt, or belongs to another run."""


class DivergedError(RuntimeError):
    """A loss, gradient or parameter that is no longer finite."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string.

    >>> nearest("sede", ["seed", "device"])
    "; did you mean 'seed'?"
    >>> nearest("zzz", ["seed"])
    ''
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def require(ok: bool, where: str, value: Any, accepted: str) -> None:
    """Raise ``ValueError`` naming the field, its value and what is accepted."""
    if not ok:
        raise ValueError(f"{where}: {value!r} is not allowed; {accepted}")


def one_of(where: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Check a closed choice."""
    require(value in choices, where, value, f"choose one of {', '.join(map(str, choices))}")

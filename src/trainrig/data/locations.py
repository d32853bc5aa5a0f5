"""Where data sets are read from and where prepared ones are kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def data_root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of data sets: the argument, else $TRAINRIG_DATA_DIR, else ``./data``.

    An argument ``./data`` that does not exist is no argument: configurations name it by default.
    """
    if data_dir and (Path(data_dir) != Path("data") or Path(data_dir).is_dir()):
        return _expanded(data_dir)
    return _expanded(os.environ.get("TRAINRIG_DATA_DIR") or "data")


def cache_dir() -> Path:
    """Return the folder of prepared tensors: $TRAINRIG_CACHE_DIR, else ``~/.cache/trainrig``.

    A user without a home (a number that the machine does not know, in a container) gets a folder
    beside the system's temporary files.
    """
    configured = os.environ.get("TRAINRIG_CACHE_DIR")
    if configured:
        return _expanded(configured)
    try:
        return Path.home() / ".cache" / "trainrig"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"trainrig-cache-{os.getuid()}"


def _expanded(path: str | os.PathLike[str]) -> Path:
    """Return the path with ``~`` replaced.

    Raises:
        ValueError: the user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder; set HOME, or give a path") from None


def put_root(root: Path) -> Path:
    """Return where data sets of the folder ``root`` are put: there, or in the cache if read-only.

    Whatever looks for a set in ``root`` looks there as well.
    """
    return cache_dir() / "data" if root.is_dir() and not os.access(root, os.W_OK) else root

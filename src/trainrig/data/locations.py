"""Where data sets are read from and where prepared ones are kept."""

from __future__ import annotations

import os
from pathlib import Path

from trainrig.files import cache_dir, expanded


def data_root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of data sets: the argument, else $TRAINRIG_DATA_DIR, else ``./data``.

    An argument ``./data`` that does not exist is no argument: configurations name it by default.
    """
    if data_dir and (Path(data_dir) != Path("data") or Path(data_dir).is_dir()):
        return expanded(data_dir)
    return expanded(os.environ.get("TRAINRIG_DATA_DIR") or "data")


def put_root(root: Path) -> Path:
    """Return where data sets of the folder ``root`` are put: there, or in the cache if read-only.

    Whatever looks for a set in ``root`` looks there as well.
    """
    return cache_dir() / "data" if root.is_dir() and not os.access(root, os.W_OK) else root

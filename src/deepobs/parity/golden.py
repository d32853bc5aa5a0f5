"""A directory of recorded values: its JSON files, arrays, settings and bounds."""

from __future__ import annotations

import json
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


class Golden:
    """Reads a directory of recorded values.

    Raises:
        FileNotFoundError: the directory or its ``meta.json`` is missing.
        ValueError: ``meta.json`` belongs to another system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "meta.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'meta.json'}: missing; give a directory of recorded values"
            )
        self.meta: dict[str, Any] = self.json("meta")
        system = self.meta.get("system")
        if system not in (None, "deepobs"):
            raise ValueError(f"{folder / 'meta.json'}: system {system!r}; 'deepobs' is expected")

    @cached_property
    def stems(self) -> list[str]:
        """Names of the files without suffix, each once."""
        files = [path for path in self.folder.iterdir() if path.is_file()]
        return sorted({path.stem for path in files})

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds of ``meta.json``."""
        return self.meta.get("bounds", {})

    def bound(self, name: str, *exceptions: str) -> float:
        """Return a bound, from ``exceptions`` of a case where one is recorded.

        Raises:
            ValueError: the directory states no such bound.
        """
        for case in exceptions:
            special = self.bounds.get("exceptions", {}).get(case, {})
            if name in special:
                return float(special[name])
        if name not in self.bounds:
            raise ValueError(f"{self.folder / 'meta.json'}: no bound {name!r}; state one")
        return float(self.bounds[name])

    def json(self, stem: str) -> Any:
        """Return a JSON file's content; None where there is none."""
        path = self.folder / f"{stem}.json"
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON ({error})") from None

    def arrays(self, stem: str) -> dict[str, np.ndarray]:
        """Return an archive's arrays; empty where there is none."""
        path = self.folder / f"{stem}.npz"
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a readable archive ({error})") from None


def max_abs(ours: Any, theirs: Any) -> float:
    """Return the largest absolute difference; NaN for different shapes."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("nan")
    return float(np.abs(ours - theirs).max(initial=0.0))


def max_rel(ours: Any, theirs: Any, floor: float = 1e-12) -> float:
    """Return the largest difference relative to each of ``theirs``; NaN for different shapes."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("nan")
    return float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), floor)).max(initial=0.0))

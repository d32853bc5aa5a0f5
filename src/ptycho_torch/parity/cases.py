"""What all checkers share: the golden directory, the registry of checkers, the measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainrig.parity import Report

Handler = Callable[["Golden", Path, Report], None]
HANDLERS: dict[str, Handler] = {}
PRECISIONS = ((torch.complex128, "float64"), (torch.complex64, "float32"))


@dataclass(frozen=True)
class Golden:
    """A golden directory, its settings and its scan."""

    directory: Path
    meta: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> Golden:
        """Read ``meta.json``."""
        path = directory / "meta.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; give a golden directory with a meta.json")
        meta = json.loads(path.read_text())
        if meta.get("system", "ptycho") != "ptycho":
            raise ValueError(f"{path}: belongs to {meta['system']!r}; give a ptycho directory")
        return Golden(directory, meta)

    @property
    def scan_name(self) -> str:
        """File name of the canonical scan."""
        return self.meta.get("scan", "synthetic_scan.npz")

    @cached_property
    def scan(self) -> dict[str, np.ndarray]:
        """The canonical scan's arrays."""
        return self.load(self.directory / self.scan_name)

    @cached_property
    def truth(self) -> np.ndarray:
        """The true object (H, W), wherever the settings say it lies."""
        where = self.meta.get("truth", {})
        arrays = self.load(self.directory / where.get("file", self.scan_name))
        return arrays[where.get("object", "objectGuess")]

    @property
    def coords(self) -> np.ndarray:
        """(n, 2) scan coordinates (x, y)."""
        return np.stack([self.scan["xcoords"], self.scan["ycoords"]], axis=1)

    @property
    def probe(self) -> np.ndarray:
        """(modes, N, N) complex probe."""
        probe = self.scan["probeGuess"]
        return probe.reshape(-1, *probe.shape[-2:])

    def bound(self, name: str) -> float:
        """A bound of ``meta.json``; KeyError when it names none."""
        return float(self.meta["bounds"][name])

    @staticmethod
    def load(path: Path) -> dict[str, np.ndarray]:
        """All arrays of an NPZ, never unpickled."""
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def checks(*names: str) -> Callable[[Handler], Handler]:
    """Register a checker for files of these names."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


def handler_for(golden: Golden, path: Path) -> Handler | None:
    """The checker of a file: by name, or for a network file by its settings or weights."""
    if path.name in HANDLERS:
        return HANDLERS[path.name]
    if path.suffix != ".npz":
        return None
    if path.stem in golden.meta.get("networks", {}):
        return HANDLERS["network"]
    with np.load(path, allow_pickle=False) as archive:
        return HANDLERS["network"] if "weight_names" in archive.files else None


def deviation(found: Any, reference: Any) -> float:
    """Largest absolute deviation over the reference's largest absolute value."""
    found = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    reference = np.asarray(reference)
    if found.shape != reference.shape:
        return float("inf")
    scale = float(np.abs(reference).max()) if reference.size else 0.0
    worst = float(np.abs(found - reference).max()) if reference.size else float("nan")
    return worst / scale if scale > 0 else worst


def rest(report: Report, case: str, arrays: dict[str, Any], used: set[str]) -> None:
    """List the arrays of a file that no check looked at."""
    for name in sorted(set(arrays) - used):
        report.unchecked(f"{case}:{name}", "no checker for this entry")

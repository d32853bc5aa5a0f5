"""What all checkers share: the golden directory, the registry of checkers, the measure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainrig.parity import Record, Recording, Report

Handler = Callable[["Golden", Path, Report], None]
HANDLERS: dict[str, Handler] = {}
PRECISIONS = ((torch.complex128, "float64"), (torch.complex64, "float32"))


#: Bounds that some check asks for; any other is listed, as nothing can use it. Those that are words
#: mean exact equality.
BOUNDS = (
    "float64_rel",
    "float32_rel",
    "merge_stitch_rel",
    "network_rel",
    "scalars_rel",
    "metrics_rel",
    "grouping",
    "snapshots",
)
#: What a scan may hold; checks use what they need.
SCAN = (
    "xcoords",
    "ycoords",
    "xcoords_start",
    "ycoords_start",
    "diff3d",
    "scan_index",
    "probeGuess",
    "objectGuess",
)
#: Parts of ``meta.json`` that concern one file, and are not missed without it.
PARTS = {
    "grouping_cases": "grouping_golden.npz",
    "masks": "masks_golden.npz",
    "stitch_M": "stitch_golden.npz",
    "merge_case": "group_merge_golden.npz",
}


class Golden(Recording):
    """A golden directory, its settings and its scan."""

    @staticmethod
    def open(directory: Path) -> Golden:
        """Read ``meta.json``."""
        golden = Golden(directory, "ptycho")
        for name in BOUNDS:
            golden.bound(name)
        networks = golden.meta.get("networks", {})
        for name in networks:
            networks[name].get("nphotons")  # what a scalar was recorded for, if it was
        for part, file in PARTS.items():
            if file not in golden and isinstance(golden.meta.get(part), Record):
                golden.meta[part].plain()
        return golden

    @property
    def scan_name(self) -> str:
        """File name of the canonical scan."""
        return self.meta.get("scan", "synthetic_scan.npz")

    @cached_property
    def scan(self) -> Record:
        """The canonical scan's arrays."""
        scan = self.arrays(self.scan_name)
        for name in SCAN:
            scan.get(name)
        return scan

    @cached_property
    def truth(self) -> np.ndarray:
        """The true object (H, W), wherever the settings say it lies."""
        where = self.meta.get("truth", {})
        arrays = self.arrays(where.get("file", self.scan_name))
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


def compare(
    report: Report, case: str, found: dict[str, Any], recorded: Record, bound: float | None
) -> None:
    """Check our arrays against those recorded under the same names; say which are not recorded."""
    for key, value in found.items():
        with report.attempt(case):
            if key in recorded:
                report.check(case, key, deviation(value, recorded[key]), bound)
            else:
                report.unchecked(case, f"{key} is not recorded")

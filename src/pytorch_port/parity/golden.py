"""Reading a directory of recorded arrays: files, settings, bounds, inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainrig.parity import Record, Recording, Report

Arrays = Mapping[str, np.ndarray]

#: Bounds that some check asks for; any other is listed, as nothing can use it.
BOUNDS = (
    "logits_abs",
    "loss_rel",
    "scalars_abs",
    "grad_norm_rel",
    "grad_norm_abs",
    "bn_state_abs",
    "positional_abs",
    "lr_rel",
    "metrics_abs",
)
TRACE_BOUNDS = ("loss_rel", "weight_l2_rel", "grad_rel")
#: Entries of ``meta.json`` for people: what the format is, what is compared bit by bit.
NOTES = (
    ("format",),
    ("bounds", "generator"),
    ("examples_divisor", "note"),
    ("examples_divisor", "default"),
)


class Golden(Recording):
    """One directory of recorded arrays and the ``meta.json`` that explains them.

    Args:
        path: the directory.
        device: where tensors are put.

    Attributes:
        met: names that ``meta.json`` excepts from checks and that were found in the recording.

    Raises:
        FileNotFoundError: no directory or no ``meta.json``.
        ValueError: ``meta.json`` cannot be read, or is of another system.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, "icl")
        self.device = device
        self.met: set[str] = set()
        for name in BOUNDS:
            self.bound(name)
        for kind in ("trace", "trace_resnet"):
            for name in TRACE_BOUNDS:
                self.bound(kind, name)
        for *parts, last in NOTES:
            found: Any = self.meta
            for part in parts:
                found = found.get(part, {})
            if isinstance(found, Record):
                found.get(last)

    def names(self, *path: str) -> tuple[str, ...]:
        """Return a list of names in ``meta.json``, where one may stand for itself."""
        found: Any = self.meta
        for part in path:
            found = found.get(part, ()) if isinstance(found, Record) else ()
        return (found,) if isinstance(found, str) else tuple(map(str, found or ()))

    def except_(self, path: tuple[str, ...], report: Report) -> None:
        """List the exceptions of ``meta.json`` that no recorded entry needed."""
        for name in self.names(*path):
            if name not in self.met:
                where = "/".join(("meta.json", *path))
                report.unchecked(where, f"{name!r} matches nothing in the recording")

    def unneeded(self, part: str) -> None:
        """Miss no entry of a part of ``meta.json`` that concerns what this recording lacks."""
        found = self.meta.get(part)
        if isinstance(found, Record):
            found.plain()

    def report_meta(self, report: Report) -> None:
        """List what ``meta.json`` says and no check asked for."""
        for where in self.meta.unread():
            report.unchecked(where, "no check reads this entry")

    def divisor(self, stem: str, arrays: Arrays) -> float:
        """Return what images of a file are divided by: its own array, else ``meta.json``'s."""
        if "examples_divisor" in arrays:
            return float(arrays["examples_divisor"])
        divisors = self.meta.get("examples_divisor", 1)
        if not isinstance(divisors, Mapping):
            return float(divisors)
        return float(divisors.get(stem, divisors.get("default", 1)))

    def tensor(self, array: np.ndarray) -> Tensor:
        """Put an array on the device; integers become int64, floats float32."""
        dtype = torch.int64 if np.issubdtype(array.dtype, np.integer) else torch.float32
        return torch.from_numpy(np.array(array)).to(self.device, dtype)


def list_unknown(report: Report, case: str, names: Iterable[str], what: str) -> None:
    """Report names nothing checks, those under one prefix together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("/")[0], []).append(name)
    for prefix, members in sorted(groups.items()):
        some = members[0] if len(members) == 1 else f"{prefix}/... ({len(members)})"
        report.unchecked(case, f"no check knows {what} {some!r}")


def absolute(ours: Any, recorded: Any) -> float:
    """Return the largest absolute difference; infinite where shapes differ or NaN occurs."""
    ours, recorded = as_array(ours), as_array(recorded)
    if ours.shape != recorded.shape:
        return math.inf
    return never_nan(np.max(np.abs(ours - recorded), initial=0.0))


def relative(ours: Any, recorded: Any, floor: float = 0.0) -> float:
    """Return the largest ``|ours - recorded| / (|recorded| + floor)``, with 0/0 = 0."""
    ours, recorded = as_array(ours), as_array(recorded)
    if ours.shape != recorded.shape:
        return math.inf
    difference, scale = np.abs(ours - recorded), np.abs(recorded) + floor
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0.0, 0.0, difference / scale)
    return never_nan(np.max(ratio, initial=0.0))


def never_nan(deviation: float) -> float:
    """Return a deviation, infinite for NaN: ``max`` would pass over a NaN, and so over a failure.

    >>> max(0.0, float("nan")), max(0.0, never_nan(float("nan")))
    (0.0, inf)
    """
    return math.inf if math.isnan(deviation) else float(deviation)


def as_array(value: Any) -> np.ndarray:
    """Return a float64 array of a tensor, array or number."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


def under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose name starts with ``prefix``, without it."""
    return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}

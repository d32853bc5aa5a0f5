"""Reading a directory of recorded arrays: files, settings, bounds, inputs."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainrig.parity import Report

Arrays = dict[str, np.ndarray]

#: What a malformed or unexpected case can raise; it becomes a failed row, not a traceback.
CASE_ERRORS = (
    AttributeError,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    RuntimeError,
    OSError,
)


class Golden:
    """One directory of recorded arrays and the ``meta.json`` that explains them.

    Args:
        path: the directory.
        device: where tensors are put.

    Raises:
        FileNotFoundError: no directory or no ``meta.json``.
        ValueError: ``meta.json`` is not a JSON object.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such directory; give one with recorded arrays")
        if not (path / "meta.json").is_file():
            raise FileNotFoundError(f"{path}: has no meta.json; it must hold seeds and bounds")
        self.path = path
        self.device = device
        self.meta = self.json("meta.json")

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; an absent file reads as empty.

        Raises:
            ValueError: not JSON, or not an object.
        """
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: not readable as JSON ({error})") from None
        if not isinstance(value, dict):
            raise ValueError(f"{path}: a JSON object is expected, not a {type(value).__name__}")
        return value

    def arrays(self, name: str) -> Arrays:
        """Read all arrays of an npz file.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path / name
        try:
            with np.load(path) as archive:
                return {key: archive[key] for key in archive.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not readable as npz ({error})") from None

    @cached_property
    def bounds(self) -> Mapping[str, Any]:
        """The bound per quantity."""
        return self.meta.get("bounds", {})

    def bound(self, *keys: str) -> float | None:
        """Return a bound, e.g. ``bound("trace", "loss_rel")``, or None where none is given."""
        value: Any = self.bounds
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def divisor(self, stem: str, arrays: Arrays) -> float:
        """Return what images of a file are divided by: its own array, else ``meta.json``'s."""
        if "examples_divisor" in arrays:
            return float(arrays["examples_divisor"])
        divisors = self.meta.get("examples_divisor", {})
        if not isinstance(divisors, Mapping):
            return float(divisors)
        return float(divisors.get(stem, divisors.get("default", 1)))

    def tensor(self, array: np.ndarray) -> Tensor:
        """Put an array on the device; integers become int64, floats float32."""
        dtype = torch.int64 if np.issubdtype(array.dtype, np.integer) else torch.float32
        return torch.from_numpy(np.array(array)).to(self.device, dtype)


def checked(
    report: Report,
    case: str,
    quantity: str,
    deviation: float,
    bound: float | None,
    detail: str = "",
) -> None:
    """Record a deviation, or that ``meta.json`` gives no bound for it."""
    if bound is None:
        report.unchecked(case, f"{quantity}: meta.json gives no bound (deviation {deviation:.3g})")
    else:
        report.check(case, quantity, deviation, bound, detail)


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
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

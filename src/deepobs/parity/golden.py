"""A directory of recorded values: its settings and bounds, and the measures of deviation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainrig.parity import Record, Recording

#: Labels that a data set has, by the first part of a problem's name.
CLASSES = {"mnist": 10, "fmnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10, "imagenet": 1001}
#: Bounds that some check asks for; any other is listed, as nothing can use it.
BOUNDS = (
    "per_example_loss_rel",
    "logits_abs",
    "regularizer_rel",
    "grad_norm_rel",
    "tf_ops_abs",
    "preprocessing_abs",
    "two_d_rel",
    "quadratic_rel",
)
#: The like of other parts: settings that a check may ask for, though no case here needs them.
SETTINGS = {"forward": ("weight_seed_base", "input_seed", "vae_noise_seed", "dropout_seed_base")}
RUNNER_BOUNDS = ("quadratic_abs", "adam_rel", "default_rel")
#: Parts of ``meta.json`` that concern one file, and are not missed without it.
PARTS = {
    ("forward",): "forward.json",
    ("runner",): "runner.json",
    ("batch_norm",): "tf_ops.npz",
    ("negative_controls",): "quadratic_deep.npz",
    ("bounds", "runner"): "runner.json",
    ("bounds", "exceptions"): "forward.json",
}


class Golden(Recording):
    """Reads a directory of recorded values of DeepOBS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "deepobs")
        for name in BOUNDS:
            self.bound(name)
        for name in RUNNER_BOUNDS:
            self.bound("runner", name)
        for part, names in SETTINGS.items():
            for name in names:
                self.settings(part).get(name)
        for path, file in PARTS.items():
            found: Any = self.meta
            for key in path:
                found = found.get(key) if isinstance(found, Record) else None
            if file not in self and isinstance(found, Record):
                found.plain()

    def settings(self, name: str) -> dict[str, Any] | Record:
        """Return one part of ``meta.json``, empty where it has none."""
        part = self.meta.get(name, {})
        return part if isinstance(part, Record) else {}

    def case_bound(self, name: str, case: str) -> float | None:
        """Return a bound for a case: its own exception, else the common one, else None."""
        special = self.bound("exceptions", case, name)
        return self.bound(name) if special is None else special


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

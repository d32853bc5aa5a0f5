"""Result folders: ``<problem>/<optimizer>/<setting>/random_seed__*.json`` of either schema.

Files of the 1.1 line (NaN literals, ``optimizer``, ``hyperparams``), of the 1.2 line
(``optimizer_name``, ``optimizer_hyperparams``) and ours are read alike. A file that is broken or
foreign is skipped and counted, and its name and reason are kept.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)
LOSSES = ("train_losses", "valid_losses", "test_losses")
ACCURACIES = ("train_accuracies", "valid_accuracies", "test_accuracies")
CURVES = (*LOSSES, *ACCURACIES)
LR_NAMES = ("lr", "learning_rate")
#: Files beside results that belong to other tools of the suite.
NOT_RESULTS = ("tuning_log.json",)


@dataclass(frozen=True)
class Run:
    """One result file.

    Attributes:
        curves: arrays (N + 1,) by name; non-finite values are NaN.
        hyperparams: all of them, the learning rate under ``lr``.
        status: ``complete`` or ``diverged``; of old files, whether all losses are finite.
    """

    path: Path
    testproblem: str
    optimizer: str
    hyperparams: dict[str, Any]
    seed: int
    batch_size: int
    num_epochs: int
    weight_decay: float | None
    status: str
    curves: dict[str, np.ndarray]
    content: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def learning_rate(self) -> float | None:
        """The base learning rate."""
        value = self.hyperparams.get("lr")
        return None if value is None else float(value)


@dataclass(frozen=True)
class Skipped:
    """A file that is no result, and why."""

    path: Path
    reason: str


@dataclass
class Setting:
    """All runs of one optimizer with one setting on one problem."""

    name: str
    runs: list[Run] = field(default_factory=list)

    @property
    def hyperparams(self) -> dict[str, Any]:
        """The hyperparameters, from the first run."""
        return self.runs[0].hyperparams

    @property
    def learning_rate(self) -> float | None:
        """The base learning rate, from the first run."""
        return self.runs[0].learning_rate


@dataclass
class Results:
    """A results folder.

    Attributes:
        settings: ``{problem: {optimizer: {setting name: Setting}}}``.
        skipped: files that were not read.
    """

    root: Path
    settings: dict[str, dict[str, dict[str, Setting]]]
    skipped: list[Skipped]

    @property
    def testproblems(self) -> list[str]:
        """Problems with at least one run, sorted."""
        return sorted(self.settings)

    def optimizers(self, testproblem: str) -> list[str]:
        """Optimizers of a problem: SGD, Momentum, Adam under either name, then the others."""
        return sorted(self.settings.get(testproblem, {}), key=optimizer_order)

    def of(self, testproblem: str, optimizer: str) -> list[Setting]:
        """Return the settings of one optimizer on one problem, by learning rate."""
        settings = self.settings.get(testproblem, {}).get(optimizer, {})
        return sorted(settings.values(), key=lambda s: (s.learning_rate or math.inf, s.name))

    def __iter__(self) -> Iterator[Run]:
        for optimizers in self.settings.values():
            for settings in optimizers.values():
                for setting in settings.values():
                    yield from setting.runs


_FIRST = ("GradientDescentOptimizer", "SGD", "MomentumOptimizer", "Momentum", "AdamOptimizer")


def optimizer_order(name: str) -> tuple[int, str]:
    """Sort key: the published baselines first, in the published order."""
    order = {known: i for i, known in enumerate((*_FIRST, "Adam"))}
    return order.get(name, len(order)), name


def read_results(root: Path | str, *, quiet: bool = False) -> Results:
    """Read every result file below ``root``.

    Args:
        root: a results folder, or the folder of one problem or optimizer inside it.
        quiet: do not log which files were skipped; the result names them either way.

    Raises:
        FileNotFoundError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such results folder")
    settings: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    skipped: list[Skipped] = []
    for path in sorted(root.rglob("*.json")):
        parts = path.relative_to(root).parts
        if path.name in NOT_RESULTS or any(part.startswith(".") for part in parts):
            continue
        try:
            run = read_run(path)
        except ValueError as error:
            skipped.append(Skipped(path, str(error)))
            continue
        group = settings[run.testproblem][run.optimizer]
        name = path.parent.name
        group.setdefault(name, Setting(name)).runs.append(run)
    if skipped and not quiet:
        logger.warning("%s: %d files skipped, first %s", root, len(skipped), skipped[0].reason)
    plain = {problem: dict(optimizers) for problem, optimizers in settings.items()}
    return Results(root, plain, skipped)


def read_run(path: Path) -> Run:
    """Read one result file of any schema.

    Raises:
        ValueError: not JSON, or not a result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}; a result object is expected")
    required = ("testproblem", "train_losses", "test_losses", "batch_size", "num_epochs")
    missing = [key for key in required if key not in content]
    if missing:
        raise ValueError(f"{path}: no result file; {missing[0]!r} is missing")
    try:
        curves = {name: _curve(content[name]) for name in CURVES if name in content}
        return _make_run(path, content, curves)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: unusable values ({error})") from None


def _curve(values: Any) -> np.ndarray:
    if not isinstance(values, list):
        raise TypeError(f"{type(values).__name__} in place of a list")
    array = np.array([math.nan if value is None else value for value in values], np.float64)
    array[~np.isfinite(array)] = math.nan
    return array


def _make_run(path: Path, content: dict[str, Any], curves: dict[str, np.ndarray]) -> Run:
    hyperparams = dict(content.get("optimizer_hyperparams") or content.get("hyperparams") or {})
    for name in LR_NAMES:
        if name in hyperparams:
            hyperparams["lr"] = hyperparams.pop(name)
    if content.get("learning_rate") is not None:
        hyperparams.setdefault("lr", content["learning_rate"])
    optimizer = content.get("optimizer") or content.get("optimizer_name") or path.parts[-3]
    decay = content.get("weight_decay", content.get("l2_reg"))
    finite = all(np.isfinite(curve).all() for name, curve in curves.items() if name in LOSSES)
    return Run(
        path=path,
        testproblem=str(content["testproblem"]),
        optimizer=str(optimizer),
        hyperparams=hyperparams,
        seed=int(content.get("random_seed", -1)),
        batch_size=int(content["batch_size"]),
        num_epochs=int(content["num_epochs"]),
        weight_decay=None if decay is None else float(decay),
        status=str(content.get("status", "complete" if finite else "diverged")),
        curves=curves,
        content=content,
    )

"""Result folders: ``<problem>/<optimizer>/<setting>/random_seed__*.json`` of either schema.

Files of the 1.1 line (NaN literals, ``optimizer``, ``hyperparams``), of the 1.2 line
(``optimizer_name``, ``optimizer_hyperparams``) and ours are read alike. A file that is broken or
foreign is skipped and counted, and its name and reason are kept. A result is known by problem,
optimizer, setting and seed, not by its file: of equal ones the newest counts.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepobs.identity import age_of, hyperparams_of, seed_of, setting_of
from trainrig.repeats import count_once, repeated_text

logger = logging.getLogger(__name__)
LOSSES = ("train_losses", "valid_losses", "test_losses")
ACCURACIES = ("train_accuracies", "valid_accuracies", "test_accuracies")
CURVES = (*LOSSES, *ACCURACIES)
#: Files beside results that belong to other tools of the suite.
NOT_RESULTS = ("tuning_log.json",)


@dataclass(frozen=True)
class Run:
    """One result file.

    Attributes:
        curves: arrays (N + 1,) by name; non-finite values are NaN.
        hyperparams: all of them, the learning rate under ``lr``.
        seed: -1 where nothing says it.
        setting: equal for runs of one problem, optimizer and setting.
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
    setting: str = ""
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

    @property
    def repaired(self) -> bool:
        """Whether the runs had ``--compat fixed``, other data than the published ones."""
        return self.runs[0].content.get("compat") == "fixed"


@dataclass
class Results:
    """A results folder.

    Attributes:
        settings: ``{problem: {optimizer: {setting name: Setting}}}``.
        skipped: files that were not read.
        times: how often each result is there that is there more than once, by the newest file.
    """

    root: Path
    settings: dict[str, dict[str, dict[str, Setting]]]
    skipped: list[Skipped]
    times: dict[Path, int] = field(default_factory=dict)

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

    @property
    def repeated(self) -> list[str]:
        """A sentence for each result that is there more than once."""
        return [
            f"{run.testproblem}, {run.optimizer}, {run.path.parent.name}: "
            + repeated_text(f"seed {run.seed}", self.times[run.path])
            for run in self
            if run.path in self.times
        ]

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
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for path in sorted(root.rglob("*.json")):
        parts = path.relative_to(root).parts
        if path.name in NOT_RESULTS or any(part.startswith(".") for part in parts):
            continue
        try:
            runs.append(read_run(path))
        except ValueError as error:
            skipped.append(Skipped(path, str(error)))
    if skipped and not quiet:
        logger.warning("%s: %d files skipped, first %s", root, len(skipped), skipped[0].reason)
    once = count_once(
        runs,
        lambda run: None if run.seed < 0 else (run.setting, run.seed),
        lambda run: age_of(run.path),
    )
    times = {run.path: 1 + len(older) for run, older in once.dropped}
    return Results(root, group_runs(once.kept), skipped, times)


def group_runs(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, Setting]]]:
    """Return ``{problem: {optimizer: {setting name: Setting}}}``.

    Runs of one setting are together, whatever their folders are called; the first one's folder
    names the setting. Of an optimizer's spellings the one with more capitals is shown.
    """
    settings: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    spelling: dict[str, str] = {}
    for run in runs:
        key = run.optimizer.casefold()
        spelling[key] = min(spelling.get(key, run.optimizer), run.optimizer)
    groups: dict[str, Setting] = {}
    for run in runs:
        if run.setting not in groups:
            own = settings[run.testproblem][spelling[run.optimizer.casefold()]]
            label = run.path.parent.name
            label += f" ({len(own) + 1})" if label in own else ""
            groups[run.setting] = own[label] = Setting(label)
        groups[run.setting].runs.append(run)
    return {problem: dict(optimizers) for problem, optimizers in settings.items()}


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
    optimizer = str(content.get("optimizer") or content.get("optimizer_name") or path.parts[-3])
    seed = seed_of(content, path)
    decay = content.get("weight_decay", content.get("l2_reg"))
    finite = all(np.isfinite(curve).all() for name, curve in curves.items() if name in LOSSES)
    return Run(
        path=path,
        testproblem=str(content["testproblem"]),
        optimizer=optimizer,
        hyperparams=hyperparams_of(content),
        seed=-1 if seed is None else seed,
        batch_size=int(content["batch_size"]),
        num_epochs=int(content["num_epochs"]),
        weight_decay=None if decay is None else float(decay),
        status=str(content.get("status", "complete" if finite else "diverged")),
        curves=curves,
        setting=setting_of(content, optimizer),
        content=content,
    )

"""Tuners: many settings of one optimizer, several seeds each, the best by a stated metric."""

from __future__ import annotations

import abc
import dataclasses
import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepobs.identity import setting_of
from deepobs.pytorch.runners.hyperparameters import Specification, normalise_specification, resolve
from deepobs.pytorch.runners.pack import run_pack
from deepobs.pytorch.runners.results import begin_repetition, end_repetition
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.settings import check_testproblem
from deepobs.pytorch.tuner.launching import launch_settings
from deepobs.pytorch.tuner.trials import (
    Trial,
    default_metric,
    other_trials,
    value_of,
    write_tuning_summary,
)
from trainrig.files import write_atomically
from trainrig.launch.options import LaunchOptions
from trainrig.report.write import write_report
from trainrig.summaries import summary_lock

logger = logging.getLogger(__name__)

REFUSED_ON_TESTSETS = ("num_epochs", "batch_size", "weight_decay", "l2_reg")


class Tuner(abc.ABC):
    """Base of the searches.

    Args:
        optimizer_class: as for the runner.
        hyperparam_names: as for the runner.
        ressources: number of settings to try (spelled as in the original).
        runner: class of the runner.
        seeds: random seeds per setting; the tuner's ``random_seed`` alone by default.
        metric: a curve's name; accuracies where there are some, validation before test, by default.
        mode: ``final`` or ``best`` value of the curve.
        optimizer_name: the result folder's name.
        pack: settings trained side by side in one program; see ``runners.pack``.
    """

    def __init__(  # noqa: PLR0913 - keyword options
        self,
        optimizer_class: Callable[..., Any],
        hyperparam_names: Specification,
        ressources: int,
        runner: type[PTRunner],
        *,
        seeds: Sequence[int] | None = None,
        metric: str | None = None,
        mode: str = "final",
        optimizer_name: str | None = None,
        pack: int = 1,
    ) -> None:
        if isinstance(pack, bool) or not isinstance(pack, int) or pack < 1:
            raise ValueError(f"pack is {pack!r}; a positive integer is expected")
        if isinstance(ressources, bool) or not isinstance(ressources, int) or ressources < 1:
            raise ValueError(f"ressources is {ressources!r}; a positive integer is expected")
        if mode not in ("final", "best"):
            raise ValueError(f"mode is {mode!r}; accepted: final, best")
        if seeds is not None and len(set(seeds)) < max(1, len(seeds)):
            given = " ".join(map(str, seeds))
            raise ValueError(f"--seeds {given}: give one or more different values")
        self.runner = runner(optimizer_class, hyperparam_names, optimizer_name)
        self.specification = normalise_specification(hyperparam_names)
        self.ressources, self.seeds, self.metric, self.mode = ressources, seeds, metric, mode
        self.pack = pack
        self.trials: list[Trial] = []

    @abc.abstractmethod
    def propose(self, random_seed: int) -> Sequence[dict[str, Any]]:
        """Return all settings to try, where they do not depend on results."""

    def tune(
        self,
        testproblem: str,
        output_dir: str | Path = "./results",
        random_seed: int = 42,
        rerun_best_setting: bool = False,
        launch: LaunchOptions | None = None,
        **run_arguments: Any,
    ) -> Trial:
        """Try every setting, write ``report.html`` beside the results, and return the best.

        Args:
            testproblem: its name.
            output_dir: root of the result files.
            random_seed: of the search, and of the runs unless ``seeds`` were given.
            rerun_best_setting: run the best setting with nine further seeds.
            launch: who carries the runs out, ``resolved``; by default this process, in turn.
            run_arguments: passed to the runner. With ``skip_if_exists=False`` every run is
                repeated, once: a repetition that is interrupted is continued.

        Raises:
            ValueError: every run diverged.
        """
        check_testproblem(testproblem)
        self.trials = []
        proposals = list(self.propose(random_seed))
        run_arguments = self._repeated(testproblem, output_dir, run_arguments)
        if launch is not None:  # what follows reads the results
            seeds = self.seeds or [random_seed]
            self._launch(testproblem, proposals, seeds, output_dir, launch, run_arguments)
        for start in range(0, len(proposals), self.pack):
            chosen = proposals[start : start + self.pack]
            self._try(testproblem, chosen, output_dir, random_seed, run_arguments)
        return self._finish(
            testproblem, output_dir, random_seed, rerun_best_setting, run_arguments, launch
        )

    def plan(
        self,
        testproblem: str,
        launch: LaunchOptions,
        output_dir: str | Path = "./results",
        random_seed: int = 42,
        **run_arguments: Any,
    ) -> None:
        """Print what ``tune`` would launch; arguments as there."""
        proposals, seeds = list(self.propose(random_seed)), self.seeds or [random_seed]
        dry = dataclasses.replace(launch, dry_run=True)
        self._launch(testproblem, proposals, seeds, output_dir, dry, run_arguments)

    def tune_on_testset(
        self, testset: Sequence[str], output_dir: str | Path = "./results", **arguments: Any
    ) -> dict[str, Trial]:
        """Tune on each problem of a benchmark set, with the published defaults.

        Raises:
            ValueError: an argument that the defaults fix.
        """
        refused = [name for name in REFUSED_ON_TESTSETS if name in arguments]
        if refused:
            raise ValueError(
                f"tune_on_testset: {refused[0]!r} is fixed by the benchmark set; use tune() instead"
            )
        return {name: self.tune(name, output_dir, **arguments) for name in testset}

    def generate_commands_script(
        self,
        testproblem: str,
        run_script: str,
        output_dir: str | Path = "./results",
        random_seed: int = 42,
        generation_dir: str | Path = "./command_scripts",
        **run_arguments: Any,
    ) -> Path:
        """Write one command line per setting and seed, for a cluster's job array.

        Args:
            testproblem: its name.
            run_script: ``scripts/run_deepobs.py``, or one that takes the same arguments.
            output_dir: root of the result files.
            random_seed: of the search, and of the runs unless ``seeds`` were given.
            generation_dir: where the script is written.
            run_arguments: further flags by name; True gives the flag alone.

        Returns:
            ``<generation_dir>/jobs_<optimizer>_<search>_<problem>.txt``.
        """
        check_testproblem(testproblem)
        lines = []
        for hyperparams in self.propose(random_seed):
            for seed in self.seeds or [random_seed]:
                words = ["python", run_script, testproblem, *self._optimizer_flags()]
                for name, value in hyperparams.items():
                    if name == "lr":
                        words += ["--lr", repr(value)]
                    else:
                        words += ["--hp", f"{name}={value}"]
                words += ["--random_seed", str(seed), "--output_dir", str(output_dir)]
                for name, value in run_arguments.items():
                    words += _flag(name, value)
                lines.append(shlex.join(words))
        search = type(self).__name__
        name = f"jobs_{self.runner.optimizer_name}_{search}_{testproblem}.txt"
        path = Path(generation_dir) / name
        write_atomically(path, "\n".join(lines) + "\n")
        return path

    def _optimizer_flags(self) -> list[str]:
        optimizer, name = self.runner.optimizer_class, self.runner.optimizer_name
        known = getattr(torch.optim, optimizer.__name__, None) is optimizer
        dotted = f"{optimizer.__module__}.{optimizer.__qualname__}"
        flags = ["--optimizer", optimizer.__name__ if known else dotted]
        return flags if name == optimizer.__name__ else [*flags, "--optimizer-name", name]

    def budget_curve(self) -> np.ndarray:
        """Return the best metric found after each trial, (trials,)."""
        values = np.array([trial.cost() for trial in self.trials])
        best = np.minimum.accumulate(values)
        return best if self.trials and self.trials[0].metric.endswith("losses") else -best

    # --- inside ---

    def _try(
        self,
        testproblem: str,
        proposals: Sequence[dict[str, Any]],
        output_dir: str | Path,
        random_seed: int,
        run_arguments: Mapping[str, Any],
    ) -> list[Trial]:
        """Run settings with all seeds and append their trials."""
        metric = self.metric
        values: list[list[float]] = [[] for _ in proposals]
        settings = [""] * len(proposals)
        for seed in self.seeds or [random_seed]:
            where = {"random_seed": seed, "output_dir": output_dir}
            outputs = self._run(testproblem, proposals, {**where, **run_arguments})
            for i, output in enumerate(outputs):
                metric = metric or default_metric(output)
                values[i].append(value_of(output, metric, self.mode))
                settings[i] = setting_of(output, self.runner.optimizer_name)
        assert metric is not None  # there is at least one setting and one seed
        trials = [
            Trial(dict(given), v, metric, setting)
            for given, v, setting in zip(proposals, values, settings, strict=True)
        ]
        self.trials += trials
        return trials

    def _run(
        self, testproblem: str, proposals: Sequence[dict[str, Any]], arguments: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return each setting's result, of this call or an earlier one."""
        if self.pack > 1:
            return run_pack(self.runner, testproblem, proposals, **arguments)
        quiet = {"verbose": False, "keep_checkpoint": False, **arguments}
        outputs = [self.runner.run(testproblem, given, **quiet) for given in proposals]
        return [output for output in outputs if output is not None]

    def _launch(
        self,
        testproblem: str,
        proposals: Sequence[dict[str, Any]],
        seeds: Sequence[int],
        output_dir: str | Path,
        launch: LaunchOptions,
        run_arguments: Mapping[str, Any],
    ) -> None:
        launch_settings(
            self.runner,
            testproblem,
            proposals,
            launch,
            seeds=seeds,
            output_dir=output_dir,
            pack=self.pack,
            **run_arguments,
        )

    def _repeated(
        self, testproblem: str, output_dir: str | Path, run_arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments of runs, ``skip_if_exists=False`` as the time when it was asked."""
        if run_arguments.get("skip_if_exists", True):
            return dict(run_arguments)
        folder = Path(output_dir) / testproblem / self.runner.optimizer_name
        return {**run_arguments, "skip_if_exists": True, "since_ns": begin_repetition(folder)}

    def _finish(
        self,
        testproblem: str,
        output_dir: str | Path,
        random_seed: int,
        rerun_best_setting: bool,
        run_arguments: Mapping[str, Any],
        launch: LaunchOptions | None = None,
    ) -> Trial:
        folder = Path(output_dir) / testproblem / self.runner.optimizer_name
        with summary_lock(folder):  # two searches may end in one folder at once
            others = other_trials(self.trials, folder, self.mode)
            write_tuning_summary(self.trials, folder, others)
        best = min(self.trials, key=Trial.cost)
        if math.isinf(best.cost()):
            end_repetition(folder)
            raise ValueError(
                f"{testproblem}: all {len(self.trials)} settings diverged; widen the search"
            )
        if rerun_best_setting:
            seeds = range(random_seed + 1, random_seed + 10)
            if launch is not None:
                chosen = [best.hyperparams]
                self._launch(testproblem, chosen, seeds, output_dir, launch, run_arguments)
            rerun_setting(
                self.runner, testproblem, best.hyperparams, output_dir, seeds, **run_arguments
            )
        end_repetition(folder)
        logger.info("report: %s", write_report(folder))
        return best


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{name}", *map(str, values)]


def rerun_setting(
    runner: PTRunner,
    testproblem: str,
    hyperparams: Mapping[str, Any],
    output_dir: str | Path,
    seeds: Sequence[int] = range(43, 52),
    **run_arguments: Any,
) -> list[dict[str, Any]]:
    """Run one setting with further seeds; by default the nine of the published protocol."""
    arguments = {"verbose": False, "keep_checkpoint": False, **run_arguments}
    outputs = [
        runner.run(testproblem, hyperparams, random_seed=seed, output_dir=output_dir, **arguments)
        for seed in seeds
    ]
    return [output for output in outputs if output is not None]


def complete(specification: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check one proposal against the specification and return it as given, typed."""
    values = resolve(specification, given, "tuner")
    return {name: values[name] for name in given}

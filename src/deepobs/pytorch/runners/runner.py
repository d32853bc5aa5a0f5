"""Runners: from arguments to a result file.

A run writes ``<output_dir>/<problem>/<optimizer>/<run_folder>/random_seed__<seed>__<time>.json``,
in the published layout. While it works, the hidden folder ``.random_seed__<seed>`` beside the
result holds its lock, status, log and checkpoints; the same call after a crash resumes from there
and gives the same result. Results can also be returned without any file (``no_logs``).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from deepobs.pytorch import config, testproblems
from deepobs.pytorch.datasets import DataSet
from deepobs.pytorch.runners.earlier import find_result
from deepobs.pytorch.runners.hyperparameters import (
    Specification,
    normalise_specification,
    resolve,
)
from deepobs.pytorch.runners.run_folder import make_output, open_session
from deepobs.pytorch.runners.session import Session
from deepobs.pytorch.runners.settings import RunSettings, check_testproblem, default_setting
from deepobs.pytorch.runners.sinks import open_sinks
from deepobs.pytorch.runners.teamwork import equalise, follow, share
from deepobs.pytorch.testproblems import TestProblem
from trainrig.device import set_precision
from trainrig.distributed import join_team
from trainrig.errors import nearest
from trainrig.files import read_json
from trainrig.optim import resolve_optimizer
from trainrig.optim.resume import prepare_optimizer
from trainrig.seeding import make_deterministic, set_seed

logger = logging.getLogger(__name__)
#: Arguments of the 1.1 and 1.2 lines that have another name here.
ALTERNATIVES = ("learning_rate", "l2_reg")


class PTRunner(abc.ABC):
    """Base of the runners: resolves arguments, makes folders, writes the result.

    Args:
        optimizer_class: called with the parameters and the hyperparameters.
        hyperparameter_names: ``{name: {"type": float, "default": 0.9}}``; the learning rate ``lr``
            is an ordinary hyperparameter. The list of dictionaries of 1.1 is understood too.
        optimizer_name: the folder's name, so that SGD and Momentum need not share one; the class's
            name by default.
    """

    def __init__(
        self,
        optimizer_class: Callable[..., torch.optim.Optimizer],
        hyperparameter_names: Specification,
        optimizer_name: str | None = None,
    ) -> None:
        self.optimizer_class = optimizer_class
        self.hyperparameter_names = normalise_specification(hyperparameter_names)
        self.optimizer_name = optimizer_name or optimizer_class.__name__

    @abc.abstractmethod
    def training(
        self,
        session: Session,
        save: Callable[[], None] | None,
        checkpoint_interval_s: float,
    ) -> None:
        """Train ``session`` to its end."""

    def make_settings(
        self,
        testproblem: str,
        hyperparams: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        num_epochs: int | None = None,
        **arguments: Any,
    ) -> RunSettings:
        """Resolve and check the arguments of a run; reads and writes nothing.

        Raises:
            ValueError, KeyError: any argument that is unknown, missing or out of range.
        """
        check_testproblem(testproblem)
        known = {field.name for field in dataclasses.fields(RunSettings)} | set(ALTERNATIVES)
        for name in arguments.keys() - known:
            raise KeyError(f"runner: unknown argument {name!r}{nearest(name, known)}")
        given = dict(hyperparams or {})
        learning_rate = arguments.pop("learning_rate", None)
        if learning_rate is not None:
            given["lr"] = learning_rate
        l2_reg = arguments.pop("l2_reg", None)
        if arguments.get("weight_decay") is None:
            arguments["weight_decay"] = l2_reg
        values = resolve(self.hyperparameter_names, given, self.optimizer_name)
        return RunSettings(
            testproblem=testproblem,
            optimizer_name=self.optimizer_name,
            hyperparams=values,
            batch_size=default_setting(testproblem, "batch_size", batch_size),
            num_epochs=default_setting(testproblem, "num_epochs", num_epochs),
            compat=config.get_compat(),
            dtype=str(config.get_dtype()).removeprefix("torch."),
            optimizer_class=_path_of(self.optimizer_class),
            **arguments,
        )

    def run(  # noqa: PLR0913 - the published signature
        self,
        testproblem: str,
        hyperparams: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        num_epochs: int | None = None,
        random_seed: int = 42,
        data_dir: str | Path | None = None,
        output_dir: str | Path = "./results",
        weight_decay: float | None = None,
        no_logs: bool = False,
        train_log_interval: int = 10,
        print_train_iter: bool = False,
        tb_log: bool = False,
        tb_log_dir: str | Path | None = None,
        skip_if_exists: bool = True,
        *,
        l2: str = "loss",
        on_divergence: str = "stop",
        checkpoint_interval_s: float = 60.0,
        tracker: str = "none",
        progress: bool = False,
        verbose: bool = True,
        since_ns: int = 0,
        **training_params: Any,
    ) -> dict[str, Any] | None:
        """Run one optimizer on one problem. Never reads the command line.

        Args:
            testproblem: a name from ``deepobs.pytorch.testproblems``.
            hyperparams: values by name, learning rate ``lr`` included.
            batch_size: the published default where None.
            num_epochs: the published default where None.
            random_seed: seeds Python, NumPy, torch and the order of the data.
            data_dir: replaces ``config.get_data_dir()``.
            output_dir: root of the result files.
            weight_decay: L2 factor; the problem's default where None. Also ``l2_reg``.
            no_logs: write nothing.
            train_log_interval: steps between two logged minibatch losses.
            print_train_iter: print them too.
            tb_log: write TensorBoard events.
            tb_log_dir: where; the run folder by default.
            skip_if_exists: train nothing where a result of this setting and seed is there, whatever
                its folder is called, and return that; False repeats the run. Not with ``no_logs``.
            l2: ``loss`` or ``optimizer-groups``.
            on_divergence: ``stop`` or ``continue``.
            checkpoint_interval_s: least seconds between two checkpoints; 0 saves at every step.
            tracker: where the curves are shown live, see ``trainrig.tracking.tracker``.
            progress: show a progress bar on stderr.
            verbose: print evaluations to stdout.
            since_ns: results that were written before this time do not count as there.
            training_params: of the runner: ``lr_sched_epochs``, ``lr_sched_factors``.

        Returns:
            The content of the result file, of this call or an earlier one; None in a process that
            followed another (``torchrun``).

        Raises:
            ValueError, KeyError, FileNotFoundError: bad arguments or data, in one sentence.
        """
        settings = self.make_settings(
            testproblem,
            hyperparams,
            batch_size,
            num_epochs,
            random_seed=random_seed,
            weight_decay=weight_decay,
            train_log_interval=train_log_interval,
            l2=l2,
            on_divergence=on_divergence,
            **training_params,
        )
        if not checkpoint_interval_s >= 0:
            raise ValueError(
                f"checkpoint_interval_s is {checkpoint_interval_s}; at least 0 is expected"
            )
        folder = self.run_folder(settings, output_dir)
        # The 1.2 line repeats by default, and returns None for a run that it skips.
        if skip_if_exists and not no_logs and (file := find_result(settings, output_dir, since_ns)):
            logger.info("%s: there already; not repeated", file)
            return read_json(file)
        if data_dir is not None:
            config.set_data_dir(data_dir)
        team = join_team()
        leads = team is None or team.leads
        silent = no_logs or not leads or (tb_log and tracker == "tensorboard")
        say = _printer() if verbose and leads else _silent
        with open_sinks(
            settings,
            trackers=[
                *([("tensorboard", Path(tb_log_dir or folder))] if tb_log and leads else []),
                ("none" if silent else tracker, folder),
            ],
            progress=progress and leads,
            print_train_iter=print_train_iter and leads,
        ) as sinks:
            session = self.make_session(settings, say, sinks)  # refuses what it must before files
            if team is not None:
                share(session, team)
            if not leads:
                follow(session, lambda: self.training(session, None, checkpoint_interval_s))
                return None
            if no_logs:
                equalise(session)
                self.training(session, None, checkpoint_interval_s)
                return make_output(settings, session)
            return self._logged(settings, folder, session, say, checkpoint_interval_s)

    def run_folder(self, settings: RunSettings, output_dir: str | Path) -> Path:
        """Return the folder of a run's results."""
        parts = (settings.testproblem, settings.optimizer_name, settings.run_name)
        return Path(output_dir).joinpath(*parts)

    def run_exists(
        self, testproblem: str, output_dir: str | Path = "./results", **arguments: Any
    ) -> bool:
        """Say whether a result of these arguments is there."""
        return find_result(self.make_settings(testproblem, **arguments), output_dir) is not None

    # --- inside ---

    def _logged(
        self,
        settings: RunSettings,
        folder: Path,
        session: Session,
        say: Callable[[str], None],
        interval_s: float,
    ) -> dict[str, Any]:
        with open_session(settings, folder, session, say) as opened:
            equalise(opened.session)
            self.training(opened.session, opened.save, interval_s)
            return opened.finish()

    def make_session(
        self,
        settings: RunSettings,
        say: Callable[[str], None],
        sinks: Any,
        data: DataSet | None = None,
    ) -> Session:
        """Return a session at its start; ``data`` is a set of the same seed to share."""
        if config.get_is_deterministic():
            make_deterministic()
        set_precision("fp32")  # of products; the numbers' type is the configuration's
        set_seed(settings.random_seed)
        problem: TestProblem = getattr(testproblems, settings.testproblem)(
            settings.batch_size, settings.weight_decay
        )
        if data is None:
            problem.set_up()
        else:
            problem.data = data
            problem.set_up_net()
        problem.l2_in_loss = settings.l2 == "loss"
        optimizer = self._make_optimizer(problem, settings)
        where = "in the loss" if problem.l2_in_loss else "as the optimizer's weight_decay"
        covered = sum(p.numel() for p in problem.regularized_parameters())
        logger.info("L2 %g over %d parameters, %s", problem.weight_decay, covered, where)
        return Session(settings, problem, optimizer, say=say, on_row=sinks.on_row)

    def _make_optimizer(self, problem: TestProblem, settings: RunSettings) -> torch.optim.Optimizer:
        parameters: Any = list(problem.net.parameters())
        if settings.l2 == "optimizer-groups":
            parameters = problem.parameter_groups()
        given = dict(settings.hyperparams)
        if isinstance(given.get("base_optimizer"), str):
            given["base_optimizer"] = resolve_optimizer(given["base_optimizer"])
        try:
            optimizer = self.optimizer_class(parameters, **given)
        except ValueError:
            raise
        except Exception as error:  # of any class
            raise ValueError(f"{self.optimizer_name}: {error}") from None
        if settings.l2 == "optimizer-groups" and "weight_decay" not in optimizer.defaults:
            raise ValueError(
                f"l2 optimizer-groups: {self.optimizer_name} takes no weight_decay; use l2 loss"
            )
        prepare_optimizer(optimizer)
        return optimizer


def _path_of(optimizer_class: Any) -> str:
    """Return an optimizer's module and class, empty for a function that makes one."""
    if not isinstance(optimizer_class, type):
        return ""
    return f"{optimizer_class.__module__}.{optimizer_class.__qualname__}"


def _printer() -> Callable[[str], None]:
    def say(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(line, flush=True)  # noqa: T201 - what the runner says; also where there is none

    return say


def _silent(line: str) -> None:
    """Swallow a console line."""

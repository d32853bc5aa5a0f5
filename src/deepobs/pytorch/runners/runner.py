"""Runners: from arguments to a result file.

A run writes ``<output_dir>/<problem>/<optimizer>/<run_folder>/random_seed__<seed>__<time>.json``,
in the published layout. The hidden folder ``.random_seed__<seed>`` beside the result holds its
lock, status, log and checkpoints; the same call after a crash resumes from there and gives the same
result. Results can also be returned without any file (``no_logs``).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from deepobs.pytorch import config, testproblems
from deepobs.pytorch.datasets import DataSet
from deepobs.pytorch.runners.hyperparameters import (
    ScheduleError,
    Specification,
    normalise_specification,
    resolve,
    specify,
)
from deepobs.pytorch.runners.job import Job, work_folder
from deepobs.pytorch.runners.live import Live
from deepobs.pytorch.runners.results import find_result, strict
from deepobs.pytorch.runners.settings import RunSettings, check_testproblem, default_setting
from deepobs.pytorch.testproblems import TestProblem
from trainrig.branching import Branch, open_branch
from trainrig.device import set_precision
from trainrig.distributed import Team, join_team
from trainrig.errors import nearest
from trainrig.files import read_json
from trainrig.optim import preset_arguments, published_name, resolve_optimizer
from trainrig.optim.needs import check_shared
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
    def training(self, job: Job) -> None:
        """Train to the end and record it."""

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
        keep_checkpoint: bool = True,
        init_from: str | None = None,
        init_state: bool = False,
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
            keep_checkpoint: keep the last one, so that the run can be trained longer.
            init_from: begin with the weights of another run, ``RUN`` or ``RUN@STEP``: its result
                file, or the hidden folder beside that.
            init_state: take over optimizer, curves and the step's number as well.
            training_params: of the runner: ``lr_sched_epochs``, ``lr_sched_factors``.

        Returns:
            The content of the result file, of this call or an earlier one; None in a process that
            followed another (``torchrun``).

        Raises:
            ValueError, KeyError, FileNotFoundError: bad arguments or data, in one sentence.
        """
        branch = open_source(init_from, state=init_state) if init_from is not None else None
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
            branch=None if branch is None else branch.identity(),
            **training_params,
        )
        if not checkpoint_interval_s >= 0:
            raise ValueError(
                f"checkpoint_interval_s is {checkpoint_interval_s}; at least 0 is expected"
            )
        if branch is not None:
            check_source(branch, settings)
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
        trackers = [("none" if silent else tracker, folder)]
        if tb_log and leads:
            trackers.insert(0, ("tensorboard", Path(tb_log_dir or folder)))
        shown = {"progress": progress and leads, "print_train_iter": print_train_iter and leads}
        with Live(settings, trackers, **shown) as live, _following(team):
            problem, optimizer = self.build(settings)  # refuses what it must before files
            if team is not None:
                share(problem, optimizer, settings, team)
            job = Job(
                settings=settings,
                problem=problem,
                optimizer=optimizer,
                folder=None if no_logs or not leads else folder,
                say=_print if verbose and leads else _silent,
                show=live.begin,
                checkpoint_interval_s=checkpoint_interval_s,
                keep_checkpoint=keep_checkpoint,
                reuse=skip_if_exists and not since_ns,
                branch=branch,
                team=team,
            )
            self.training(job)
            if leads and not job.output:  # another process has finished the run meanwhile
                found = find_result(settings, output_dir)
                return None if found is None else read_json(found)
            return job.output if leads else None
        return None

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

    def build(
        self, settings: RunSettings, data: DataSet | None = None
    ) -> tuple[TestProblem, torch.optim.Optimizer]:
        """Return the seeded problem and its optimizer; ``data`` is a set of the seed to share."""
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
        return problem, optimizer

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
        prepare_optimizer(optimizer)  # as it is built, before a trial of its step changes it
        return optimizer


class StandardRunner(PTRunner):
    """Constant learning rate, or the piecewise constant one of 1.1 where both lists are given."""

    def training(self, job: Job) -> None:
        """Train to the end: evaluate before, and after each epoch."""
        with job.recorded() as run:
            start, curves = job.restore(run), job.curves
            if start == 0 and not curves.evaluations:
                curves.evaluate(run, 0)
                run.settle(0)
            curves.resume()
            for step in job.steps(start):
                curves.take(run, step)
                if step.step % job.per_epoch == 0:
                    curves.evaluate(run, step.step)
                run.settle(step.step)
                curves.resume()


class LearningRateScheduleRunner(StandardRunner):
    """Multiplies the base learning rate by ``lr_sched_factors`` from ``lr_sched_epochs`` on."""

    def make_settings(self, testproblem: str, *args: Any, **arguments: Any) -> RunSettings:
        """Resolve the arguments; the schedule is required.

        Raises:
            ScheduleError: no schedule given.
        """
        if arguments.get("lr_sched_epochs") is None and arguments.get("lr_sched_factors") is None:
            raise ScheduleError(
                "learning-rate schedule: none given; "
                "give lr_sched_epochs and lr_sched_factors, or use StandardRunner"
            )
        return super().make_settings(testproblem, *args, **arguments)


def make_runner(
    optimizer: str, given: Mapping[str, Any], optimizer_name: str | None = None
) -> tuple[StandardRunner, dict[str, Any]]:
    """Return a runner of an optimizer, and all hyperparameters that are given or preset.

    Args:
        optimizer: a name of ``trainrig.optim`` (``Adam``, ``Momentum``, ``lion``; in any letter
            case), or a dotted path.
        given: hyperparameters by name, as texts or values.
        optimizer_name: of the result folder; the optimizer's by default.

    Raises:
        ValueError, KeyError: no such optimizer.
    """
    optimizer_class = resolve_optimizer(optimizer)
    hyperparams = {**preset_arguments(optimizer), **given}
    specification = specify(optimizer_class)
    # Arguments left at the optimizer's own default are no part of the setting's name.
    chosen = {
        key: entry
        for key, entry in specification.items()
        if key in hyperparams or (key == "lr" and "default" not in entry)
    }
    unknown = any(key not in specification for key in hyperparams)
    name = optimizer_name or published_name(optimizer)
    return StandardRunner(optimizer_class, specification if unknown else chosen, name), hyperparams


# --- what a run begins from ---


def open_source(name: str, *, state: bool) -> Branch:
    """Load the checkpoint that ``RUN`` or ``RUN@STEP`` names, as ``trainrig.branching``.

    Args:
        name: RUN is a result file, or the hidden folder of its run.
        state: whether everything is taken over, not the weights alone.

    Raises:
        ValueError, CheckpointError: as ``open_branch``.
    """
    found = re.fullmatch(r"(.+?)(@\d+)?", name)
    assert found is not None  # of any text
    path, seed = Path(found[1]), re.match(r"random_seed__(\d+)__", Path(found[1]).name)
    if path.is_file() and seed is not None:
        name = f"{work_folder(path.parent, int(seed[1]))}{found[2] or ''}"
    return open_branch(name, state=state)


def check_source(branch: Branch, settings: RunSettings) -> None:
    """Refuse another run's state where it would replace a hyperparameter that is given.

    Raises:
        ValueError: the two differ in more than the learning rate.
    """
    if not branch.state:
        return
    file = branch.checkpoint.path.parents[3] / "config.json"
    known, own = read_json(file), strict(settings.to_dict())
    for name in ("testproblem", "optimizer_class"):
        if known.get(name) != own[name]:
            raise ValueError(
                f"--init-state: {file.parent} is a run of {known.get(name)}, not of {own[name]}; "
                "take its weights alone, or another run"
            )
    theirs, ours = known["hyperparams"], own["hyperparams"]
    for name in sorted((theirs.keys() | ours.keys()) - {"lr", "learning_rate"}):
        if theirs.get(name) != ours.get(name):
            raise ValueError(
                f"--init-state: the optimizer that is taken over has {name} {theirs.get(name)}, "
                f"not {ours.get(name)}; give the same, or take the weights alone"
            )


# --- several processes ---


def share(
    problem: TestProblem, optimizer: torch.optim.Optimizer, settings: RunSettings, team: Team
) -> None:
    """Let a problem draw this process's rows of every batch.

    Losses and accuracies are averaged over the processes, so that all hold those of whole batches.
    The first process alone has a folder and logs.

    Raises:
        ValueError: the batch cannot be shared evenly, the problem carries a state from batch to
            batch, or the optimizer evaluates the loss itself: both would differ with the number.
    """
    rows = team.share(settings.batch_size)
    if type(problem).carried_state is not TestProblem.carried_state:
        raise ValueError(
            f"{settings.testproblem}: carries a state from batch to batch; in one process only, "
            "leave torchrun out"
        )
    check_shared(optimizer)
    for loader in problem.data.loaders.values():
        loader.rows = rows


def _following(team: Team | None) -> contextlib.AbstractContextManager[None]:
    """Return a context within which a process other than the first does as that one does."""
    return contextlib.nullcontext() if team is None or team.leads else team.following()


def _path_of(optimizer_class: Any) -> str:
    """Return an optimizer's module and class, empty for a function that makes one."""
    if not isinstance(optimizer_class, type):
        return ""
    return f"{optimizer_class.__module__}.{optimizer_class.__qualname__}"


def _print(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)  # noqa: T201 - what the runner says; also where there is none


def _silent(line: str) -> None:
    """Swallow a console line."""

"""One DeepOBS run from names to its result file: ``run(config)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deepobs.pytorch.runners.results import find_result, strict
from deepobs.pytorch.runners.runner import StandardRunner, make_runner, open_source
from deepobs.pytorch.runners.settings import RunSettings
from trainrig.config import InitConfig
from trainrig.files import read_json
from trainrig.processes import process_rank
from trainrig.run_status import RunResult

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepObsConfig:
    """What decides the result of a run; a None takes the default of the problem.

    Attributes:
        testproblem: a name from ``deepobs.pytorch.testproblems``.
        optimizer: a class of ``torch.optim``, ``Momentum``, ``Nesterov``, or ``package.Class``.
        lr: learning rate.
        hyperparams: further arguments of the optimizer; texts are converted to their types.
        optimizer_name: the result folder's name; the class's name where None.
        batch_size: examples per step.
        num_epochs: passes over the training set.
        random_seed: of weights and order.
        weight_decay: L2 factor.
        l2: in the loss, as published, or the optimizer's own weight decay.
        lr_sched_epochs: epochs (from 1) at which the learning rate changes.
        lr_sched_factors: its factors there, relative to ``lr``.
        train_log_interval: steps between two logged minibatch losses.
        on_divergence: what to do at the first loss that is not finite.
        init: another run that it begins from.
    """

    testproblem: str
    optimizer: str = "SGD"
    lr: float | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    optimizer_name: str | None = None
    batch_size: int | None = None
    num_epochs: int | None = None
    random_seed: int = 42
    weight_decay: float | None = None
    l2: Literal["loss", "optimizer-groups"] = "loss"
    lr_sched_epochs: Sequence[int] | None = None
    lr_sched_factors: Sequence[float] | None = None
    train_log_interval: int = 10
    on_divergence: Literal["stop", "continue"] = "stop"
    init: InitConfig = field(default_factory=InitConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        data_dir: replaces the configured folder of data sets.
        no_logs: write nothing.
        skip_if_exists: train nothing where a result of this setting and seed is there.
        checkpoint_interval_s: least seconds between two checkpoints; 0 saves at every step.
        keep_checkpoint: keep the last one, so that the run can be trained longer.
        tracker: where the curves are shown live: ``none``, ``trackio`` or ``tensorboard``.
        tb_log: write TensorBoard events.
        tb_log_dir: where; the run folder where None.
        print_train_iter: print minibatch losses.
        progress: show a progress bar.
        verbose: print evaluations.
    """

    data_dir: Path | None = None
    no_logs: bool = False
    skip_if_exists: bool = True
    checkpoint_interval_s: float = 60.0
    keep_checkpoint: bool = True
    tracker: str = "none"
    tb_log: bool = False
    tb_log_dir: Path | None = None
    print_train_iter: bool = False
    progress: bool = False
    verbose: bool = True


def run(
    config: DeepObsConfig, runtime: Runtime | None = None, *, path: Path | None = None
) -> RunResult:
    """Train an optimizer on a test problem and write its result file, resuming what is there.

    Args:
        config: the run.
        runtime: what does not change its numbers.
        path: root of the result files; default ``results``. The run's own place below it is
            ``<problem>/<optimizer>/<setting>``.

    Returns:
        ``path`` is the result file; ``step`` counts the evaluated epochs after the start. Under
        ``torchrun`` a process that followed the first has neither, and wrote nothing.

    Raises:
        ValueError, KeyError, FileNotFoundError: bad arguments or data, in one sentence.
    """
    runtime, path = runtime or Runtime(), path or Path("results")
    runner, deciding = _prepare(config)
    settings = settings_of(config)
    reuse = runtime.skip_if_exists and not runtime.no_logs and process_rank() == 0
    if reuse and (there := find_result(settings, path)) is not None:
        found = result_of(read_json(there), there)
        return dataclasses.replace(found, message=f"{there}: there already; --again repeats it")
    begin: dict[str, Any] = {"init_from": config.init.run, "init_state": config.init.state}
    output = runner.run(output_dir=path, **deciding, **begin, **dataclasses.asdict(runtime))
    if process_rank() > 0:
        return RunResult(path=None, status="complete", counts="epoch")
    if runtime.no_logs:
        assert output is not None  # this process led
        return result_of(strict(output), None)
    assert output is not None  # this process led
    return result_of(output, find_result(settings, path))


def settings_of(config: DeepObsConfig) -> RunSettings:
    """Return the resolved arguments of a run; reads at most what it begins from.

    Raises:
        ValueError, KeyError: any of them that is unknown or out of range.
    """
    runner, deciding = _prepare(config)
    if config.init.run is not None:
        deciding["branch"] = open_source(config.init.run, state=config.init.state).identity()
    return runner.make_settings(**deciding)


def _prepare(config: DeepObsConfig) -> tuple[StandardRunner, dict[str, Any]]:
    """Return the runner, and the arguments that decide the result."""
    given = dict(config.hyperparams) | ({} if config.lr is None else {"lr": config.lr})
    runner, hyperparams = make_runner(config.optimizer, given, config.optimizer_name)
    optimizer = ("optimizer", "lr", "hyperparams", "optimizer_name", "init")
    names = [field.name for field in dataclasses.fields(config) if field.name not in optimizer]
    return runner, {"hyperparams": hyperparams, **{name: getattr(config, name) for name in names}}


def result_of(output: Mapping[str, Any], file: Path | None) -> RunResult:
    """Return how a run ended, from the content of its result file."""
    metrics = {
        split: {
            name: output[key][-1]
            for name, key in (("loss", f"{split}_losses"), ("accuracy", f"{split}_accuracies"))
            if output.get(key)
        }
        for split in SPLITS
    }
    epochs = len(output["train_losses"]) - 1
    diverged = output["status"] == "diverged"
    return RunResult(
        path=file,
        status=output["status"],
        step=epochs,
        counts="epoch",
        metrics={split: scalars for split, scalars in metrics.items() if scalars},
        message=f"diverged after {epochs} evaluated epochs" if diverged else "",
    )

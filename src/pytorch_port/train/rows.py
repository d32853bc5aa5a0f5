"""What an ICL run records: its options, the rows that are due after a step, and its first words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import REGIMES, IclInputs
from pytorch_port.train.evaluation import evaluate, step_scalars
from trainrig.config import to_dict
from trainrig.loop import StepRecord
from trainrig.recorder import Intervals, Recorder
from trainrig.tracking.tracker import track_run

#: What a line of progress.txt shows, where its row has it; metrics.jsonl holds everything.
PROGRESS_COLUMNS = (
    "step",
    "split",
    "loss",
    "accuracy_query",
    "accuracy_closed",
    "weight_l2",
    "weight_l2_all",
    "weight_l2_head",
    "grad_l2",
    "lr",
    "elapsed",
    "steps_per_second",
)


#: The key of a run's length: a finished run may become longer, since neither its learning rate nor
#: its data depend on it.
LENGTH = "training_steps"


def record_options(config: IclConfig, runtime: Runtime) -> dict[str, Any]:
    """Return how long a run is and what it records when, for ``trainrig.recorder.recorded``."""
    training = config.training
    return {
        "total": config.training_steps,
        "length": LENGTH,
        "columns": PROGRESS_COLUMNS,
        "intervals": Intervals(
            log=training.log_interval,
            evaluate=training.eval_interval,
            save=training.save_interval,
            keep_last=training.keep_last,
        ),
        "track": track_run(runtime.project, to_dict(config), runtime.tracker),
    }


def announce(
    record: Recorder,
    config: IclConfig,
    inputs: IclInputs,
    model: nn.Module,
    engine: Mapping[str, Any],
) -> None:
    """Say in the log of a run that is not finished what is trained on what, and how."""
    if record.finished:
        return
    counts = sum(p.numel() for p in model.parameters())
    images = inputs.describe()
    record.logger.info("%d parameters, %d classes, images: %s", counts, config.num_classes, images)
    fell_back = config.training.engine == "eager" and inputs.device.type == "cuda"
    say = record.logger.warning if fell_back else record.logger.info
    say("engine %s (%s)", engine["engine"], engine["reason"])
    if "streams" in engine:
        gib = [engine[key] / 2**30 for key in ("free_bytes", "total_bytes")]
        record.logger.info("%d streams, %.1f of %.1f GiB free", engine["streams"], *gib)


def write_rows(
    record: Recorder, step: StepRecord, config: IclConfig, inputs: IclInputs, model: nn.Module
) -> None:
    """Write the rows that are due: the step's batch (before the update), then both regimes.

    Raises:
        DivergedError: a number of a row is not finite.
    """
    number = step.step
    if record.logs(number):
        scalars = step_scalars(config, inputs, model, step)
        rate = {} if step.lr is None else {"lr": step.lr}
        record.row("train", number, **scalars, **rate)
    if record.evaluates(number):
        with record.evaluated(number):
            for regime in REGIMES:
                scalars = evaluate(model, inputs, config, regime, step=number)
                record.evaluation(regime, number, **scalars)


def shown(record: Recorder) -> dict[str, str]:
    """Return what the progress bar says of a run."""
    return {"loss": f"{record.latest['train']['loss']:.3f}"} if "train" in record.latest else {}

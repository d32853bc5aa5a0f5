"""The two regimes that the figures are about, measured on a model or on a finished run.

* ``holdout`` (in-context): few-shot sequences of classes never trained on; chance of
  ``accuracy_closed`` is 1/ways, its ceiling below 1 because ways are drawn with replacement.
* ``no_support`` (in-weights): trained classes, the query's class absent from the context.

Sequences are fresh at every evaluation and a pure function of (seed, regime, step): all weight
decays of a sweep meet the same sequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import FINAL_REGIMES, REGIMES, IclInputs, load_inputs
from pytorch_port.model.assembly import build_icl_model
from pytorch_port.train.losses import icl_scalars, make_targets
from trainrig.checkpoint import last_checkpoint, load_weights
from trainrig.config import from_dict
from trainrig.device import autocast, choose_device
from trainrig.files import read_json
from trainrig.loop import StepRecord
from trainrig.metrics import grad_l2, read_scalars, weight_l2, weight_l2_all, weight_l2_head
from trainrig.registry import Registry
from trainrig.runs import LATEST, read_status

#: Further scalars of an evaluation: functions (query logits (B, K), query labels (B,)) -> scalar
#: tensor, the mean over the batch. They are logged beside the 13, under their names.
EVALUATION_METRICS = Registry("evaluation metric")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    inputs: IclInputs,
    config: IclConfig,
    regime: str,
    *,
    step: int,
    batches: int | None = None,
) -> dict[str, float]:
    """Return the 13 scalars of one regime and the registered ones, averaged over its sequences.

    Args:
        model: left in evaluation mode.
        inputs: of the same configuration.
        config: the run's configuration.
        regime: ``holdout``, ``no_support``, ``common`` or ``rare``.
        step: optimizer steps completed; chooses the sequences.
        batches: default ``config.evaluation.batches``.
    """
    model.eval()
    count = batches or config.evaluation.batches
    joined = _batches_at_once(config, inputs)
    while True:
        try:
            totals = _sums(model, inputs, config, regime, (step * count, count), joined)
        except torch.OutOfMemoryError:
            if joined == 1:
                raise
            torch.cuda.empty_cache()
            joined //= 2
            _FITTING[inputs.device] = joined * config.evaluation.batch_size
        else:
            return {name: total / count for name, total in read_scalars(totals).items()}


#: Sequences that are evaluated together on a device; fewer where memory was too small.
SEQUENCES_AT_ONCE = 2048
_FITTING: dict[torch.device, int] = {}


def _batches_at_once(config: IclConfig, inputs: IclInputs) -> int:
    """Return how many batches pass the model together: one on a CPU, where more gain nothing."""
    if inputs.device.type == "cpu" or inputs.draws_pixels:
        return 1
    sequences = _FITTING.get(inputs.device, SEQUENCES_AT_ONCE)
    return max(1, sequences // config.evaluation.batch_size)


def _sums(
    model: nn.Module,
    inputs: IclInputs,
    config: IclConfig,
    regime: str,
    numbers: tuple[int, int],
    joined: int,
) -> dict[str, torch.Tensor]:
    """Return the scalars of evaluation batches, summed; ``joined`` of them pass together."""
    start, count = numbers
    concatenated = config.embedding.concatenate_labels
    totals: dict[str, torch.Tensor] = {}
    for batch in inputs.evaluation_batches(regime, start, count, joined=joined):
        with autocast(inputs.device, config.training.precision):
            logits = model(batch.examples, batch.labels, query_only=True)
        scalars = icl_scalars(
            logits,
            make_targets(batch.labels, concatenate_labels=concatenated),
            inputs.label_sets,
            {**REGIMES, **FINAL_REGIMES}[regime],
            concatenate_labels=concatenated,
        )
        for name in EVALUATION_METRICS:
            scalars[name] = EVALUATION_METRICS[name](logits[:, -1], batch.labels[:, -1])
        together = len(batch.labels) // config.evaluation.batch_size
        for name, value in scalars.items():
            value = value * together if together > 1 else value
            totals[name] = totals[name] + value if name in totals else value
    return totals


def evaluate_run(
    path: Path,
    *,
    max_eval_batches: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    regimes: Iterable[str] = tuple(REGIMES),
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, in the two regimes of training if no others are named.

    Returns:
        The measured columns of ``figure3_adamw_metrics.csv``: step, number of sequences, then
        per regime ``accuracy`` (over all classes), ``accuracy_closed``, ``loss`` and weight norms.

    Raises:
        FileNotFoundError: ``path`` holds no run.
        CheckpointError: it holds no checkpoint, the newest is damaged or of another model, or the
            run is complete and its last one is gone.
        ValueError: the run's images are not the ones found now.
    """
    chosen = choose_device(device)
    config, identity = read_run_config(path)
    inputs = load_inputs(config, chosen, data_dir=data_dir)
    trained_on, found = identity.get("images", {}), inputs.describe()
    if trained_on.get("pixels_sha256") != found.get("pixels_sha256"):
        raise ValueError(
            f"{path}: trained on images {trained_on}, but found are {found}; set the data folder "
            "to the one that it was trained on"
        )
    status = read_status(path)
    ended_at = status.get("step") if status["status"] == "complete" else None
    checkpoint = last_checkpoint(path / LATEST, chosen, ended_at=ended_at)
    model = build_icl_model(config, inputs.example_shape).to(chosen)
    load_weights(model, checkpoint)
    batches = max_eval_batches or config.evaluation.batches
    row: dict[str, Any] = {
        "global_step": checkpoint.step,
        "n_sequences": batches * config.evaluation.batch_size,
    }
    norms = {
        "weight_l2": float(weight_l2(model)),
        "weight_l2_all": float(weight_l2_all(model)),
        "weight_l2_head": float(weight_l2_head(model)),
    }
    for regime in regimes:
        scalars = evaluate(model, inputs, config, regime, step=checkpoint.step, batches=batches)
        row |= {
            f"accuracy_{regime}": scalars["accuracy_query"],
            f"accuracy_closed_{regime}": scalars["accuracy_closed"],
            f"loss_{regime}": scalars["loss"],
            **{f"{name}_{regime}": value for name, value in norms.items()},
        }
    return row


def read_run_config(path: Path) -> tuple[IclConfig, dict[str, Any]]:
    """Return a run's configuration and its whole identity (device and images included)."""
    try:
        identity = read_json(path / "config.json")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: holds no run (no config.json)") from None
    tree = {
        key: value for key, value in identity.items() if key not in ("device", "images", "branch")
    }
    return from_dict(IclConfig, tree, str(path / "config.json")), identity


def step_scalars(
    config: IclConfig, inputs: IclInputs, model: nn.Module, record: StepRecord
) -> dict[str, float]:
    """Return the 13 scalars of a step's batch, before the update, and the norms after it."""
    logits, labels = record.output
    concatenated = config.embedding.concatenate_labels
    scalars = icl_scalars(
        logits,
        make_targets(labels, concatenate_labels=concatenated),
        inputs.label_sets,
        config.data.train_seqs,
        w_interim=config.training.w_interim_predictions,
        concatenate_labels=concatenated,
    )
    norms = {
        "weight_l2": weight_l2(model),
        "weight_l2_all": weight_l2_all(model),
        "weight_l2_head": weight_l2_head(model),
        "grad_l2": grad_l2(model) if record.measured is None else record.measured,
    }
    if config.optimizer.l2_mode != "decoupled":
        norms["penalized_loss"] = record.loss
    return read_scalars(scalars | norms)

"""The optimizer steps of a run: what is minimised, on which batches, by which engine.

The run (``experiment.py``) and the measurements (``benchmarks/icl_cases.py``) use this iterator.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from pytorch_port.config.schema import IclConfig
from pytorch_port.data.device_batches import DeviceBatches
from pytorch_port.data.inputs import IclInputs
from pytorch_port.model.assembly import make_icl_optimizer
from pytorch_port.model.sequence_models import TransformerICL
from pytorch_port.train.losses import icl_loss
from trainrig.config import apply_overrides, to_dict
from trainrig.device import autocast
from trainrig.engine import Chosen, Engine, GraphedUpdate, check_compilable, check_engine
from trainrig.loop import StepRecord, train_steps
from trainrig.metrics import grad_l2
from trainrig.optim.needs import needs_of
from trainrig.optim.penalties import l2_penalty
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.updates import Update, make_update

LossFunction = Callable[[nn.Module, Any], tuple[Tensor, Any]]

#: A graph is trusted where the losses of this many steps agree with eager ones to this bound.
TRIAL_STEPS = 5
TRIAL_BOUND = 1e-5


def make_loss(config: IclConfig, device: torch.device) -> LossFunction:
    """Return ``(model, batch) -> (loss, (logits, labels))``, the penalty on weights included.

    Without interim predictions only the query's logits are computed (``query_only_head``); the
    loss and all scalars are the same within rounding.
    """
    w = config.training.w_interim_predictions
    query_only = config.training.query_only_head and w == 0
    concatenated = config.embedding.concatenate_labels
    mode, decay = config.optimizer.l2_mode, config.optimizer.weight_decay

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        with autocast(device, config.training.precision):
            logits = model(batch.examples, batch.labels, query_only=query_only)
        loss = icl_loss(logits, batch.labels, w, concatenate_labels=concatenated)
        if mode != "decoupled" and decay > 0:
            loss = loss + l2_penalty(model.parameters(), mode, decay)
        return loss, (logits.detach(), batch.labels)

    return loss_fn


def training_steps(
    config: IclConfig,
    inputs: IclInputs,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    engine: Engine = "eager",
    start_step: int = 0,
    num_workers: int = 0,
    batches: Iterable[Any] | None = None,
) -> Iterator[StepRecord]:
    """Perform steps ``start_step + 1 .. training_steps`` of a run, yielding after each.

    ``output`` of a record is (logits before the update, labels) of the step's last batch. With a
    graph both lie where the next step overwrites them.

    Args:
        config: the run's configuration.
        inputs: its data.
        model: trained in place.
        optimizer: of the model's parameters.
        engine: see ``trainrig.engine``; ``resolve_engine`` chooses for ``auto``.
        start_step: steps completed before.
        num_workers: processes that draw sequences with the exact sampler.
        batches: trained on instead of the run's own, from the first one of the first step; not
            with a graph.

    Raises:
        ValueError: an engine that the device, the sampler or the optimizer does not allow.
    """
    check_engine(engine, inputs.device)
    training, loss_fn = config.training, make_loss(config, inputs.device)
    update: Update
    if engine == "graph":
        update = _graphed(config, inputs, model, optimizer, loss_fn, start_step)
        batches = count(start_step)
    else:
        keeps = needs_of(optimizer).keeps_gradient  # where not, its norm is taken before each step
        update = make_update(optimizer, measure=None if keeps else partial(grad_l2, model))
    if engine == "compile":
        check_compilable(optimizer)
        model = compiled_twin(model, inputs)
    if batches is None:
        first = start_step * training.accumulate
        batches = inputs.training_batches(first, num_workers=num_workers)
    return train_steps(
        model,
        optimizer,
        batches,
        loss_fn,
        schedule=warmup_rsqrt(config.optimizer.max_lr, config.optimizer.warmup_steps),
        total_steps=config.training_steps,
        start_step=start_step,
        accumulate=training.accumulate,
        update=update,
    )


def compiled_twin(model: nn.Module, inputs: IclInputs) -> nn.Module:
    """Return a compiled twin of a model, with the same parameters.

    Of a transformer only the blocks are compiled: they share one program, which takes a fraction
    of the time for the whole, and are where the small operators are. Other models are compiled as
    one, having seen a batch, so that their table of positions is complete.
    """
    if isinstance(model, TransformerICL):
        shared = (model.embedder, model.norm, model.head, *model.blocks.parameters())
        twin = copy.deepcopy(model, {id(part): part for part in shared})
        for block in twin.blocks:
            block.compile(dynamic=False)
        return twin
    batch = next(inputs.training_batches(0))
    with torch.no_grad(), torch.random.fork_rng(_cuda_devices(inputs)):
        model.eval()(batch.examples, batch.labels)
    whole = torch.compile(model, dynamic=False)
    assert isinstance(whole, nn.Module)  # torch's annotation speaks of functions only
    return whole


def pass_training_batches(
    config: IclConfig, inputs: IclInputs, model: nn.Module
) -> Callable[[int], Iterator[None]]:
    """Return what passes the training batches that follow a step through a model, one by one."""

    def passing(step: int) -> Iterator[None]:
        for batch in inputs.training_batches(step * config.training.accumulate):
            with autocast(inputs.device, config.training.precision):
                model(batch.examples, batch.labels)
            yield

    return passing


def _graphed(
    config: IclConfig,
    inputs: IclInputs,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFunction,
    start_step: int,
) -> GraphedUpdate:
    if config.training.accumulate > 1:
        raise ValueError(
            f"--engine graph: one batch per step, but --accumulate is "
            f"{config.training.accumulate}; use --accumulate 1 or --engine eager"
        )
    return GraphedUpdate(model, optimizer, DeviceBatches(inputs), loss_fn, number=start_step)


def resolve_engine(config: IclConfig, inputs: IclInputs, model: nn.Module) -> Chosen:
    """Return the engine that ``config`` names, or what ``auto`` stands for on this device.

    On a CPU that is eager: compiling takes longer than it saves in a run of this size. On CUDA it
    is the graph, where the losses of a few steps from ``model`` agree with eager ones.

    Raises:
        ValueError: a named engine that the device does not allow.
    """
    engine = config.training.engine
    if engine != "auto":
        check_engine(engine, inputs.device)
        return Chosen(engine, "asked for")
    if inputs.device.type != "cuda":
        return Chosen("eager", "compiling takes longer than it saves on a CPU")
    fixed = {"seed": 0, "optimizer.weight_decay": 0.0, "training_steps": 1}
    key = json.dumps(to_dict(apply_overrides(config, fixed)), sort_keys=True)
    if key not in _TRIALS:
        _TRIALS[key] = _try_graph(config, inputs, model)
    return _TRIALS[key]


_TRIALS: dict[str, Chosen] = {}


def _try_graph(config: IclConfig, inputs: IclInputs, model: nn.Module) -> Chosen:
    settings = {"training_steps": TRIAL_STEPS, "optimizer.warmup_steps": 1}
    config = apply_overrides(config, settings)  # or the first steps would hardly move the weights
    try:
        eager, graph = (trial_losses(config, inputs, model, name) for name in ("eager", "graph"))
    except (ValueError, RuntimeError) as error:  # the sampler, the optimizer or a kernel objects
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        return Chosen("eager", f"no graph: {reason}")
    if bool(((eager - graph).abs() <= TRIAL_BOUND * eager.abs()).all()):
        return Chosen("graph", f"its first {TRIAL_STEPS} steps agree with eager ones")
    losses = f"{graph.tolist()} instead of {eager.tolist()}"
    return Chosen("eager", f"no graph: the losses of its first steps are {losses}")


def trial_losses(config: IclConfig, inputs: IclInputs, model: nn.Module, engine: Engine) -> Tensor:
    """Return the losses of ``training_steps`` steps of a copy of ``model``.

    Dropout draws the same numbers each time, and the random state is left as it was.
    """
    twin = copy.deepcopy(model)
    optimizer = make_icl_optimizer(config, twin)
    with torch.random.fork_rng(_cuda_devices(inputs)):
        torch.manual_seed(config.seed)
        records = training_steps(config, inputs, twin, optimizer, engine=engine)
        return torch.stack([r.loss.clone() for r in islice(records, config.training_steps)])


def _cuda_devices(inputs: IclInputs) -> list[torch.device]:
    return [inputs.device] if inputs.device.type == "cuda" else []

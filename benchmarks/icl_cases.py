"""The ICL cases of ``scripts/benchmark.py``.

``reference-style`` is the yardstick: our model, eager and in float32, with all logits and torch's
own batch normalisation, fed by the reference's generator in a DataLoader without worker processes.
Ours are the steps that a run takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pytorch_port.config.files import load_icl_config
from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.batch import gather_examples
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.data.loading import SequenceDataset
from pytorch_port.sweep.pack_steps import pack_steps
from pytorch_port.train.experiment import build, run
from pytorch_port.train.steps import make_loss, resolve_engine, training_steps
from roofline import Work, count_work
from timing import Case, Cases, Loop, Options
from trainrig.config import apply_overrides
from trainrig.files import scratch_folder
from trainrig.models.batchnorm import EPS, BatchStatistics, DebiasedBatchNorm, update_averages
from trainrig.models.resnet import ResNetEncoder
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.vectorized import Stack, StackedOptimizer

REFERENCE = "reference-style"
ENDLESS = 2**31 - 1
#: Name of a case → configuration and what it changes. 12 layers, 8 heads, batches of 32 or as
#: named: a busy machine may be too slow for 105 px.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "symbolic": ("configs/icl/symbolic.py", {}),
    "28 px": ("configs/icl/images_all_exemplars.py", {"preproc.downsample": True}),
    "105 px": ("configs/icl/images_all_exemplars.py", {}),
    "105 px, batch 8": ("configs/icl/images_all_exemplars.py", {"training.batch_size": 8}),
}
PACKS = (5, 10, 20)
STEPS = {"symbolic": 20, "28 px": 8, "105 px": 2, "105 px, batch 8": 4}


def cases(options: Options) -> Cases:
    """Return the cases by name; see ``timing``."""
    builders: dict[str, Callable[[], Case]] = {}
    for name in SETTINGS:
        builders[name] = partial(_single, name, options)
        builders[f"{name}, compile"] = partial(_single, name, options, engine="compile")
        builders[f"{name}, {REFERENCE}"] = partial(_yardstick, name, options)
    for count in (100, 1600, 12_800):
        changes = {
            "data.generator_config.n_rare_classes": count - 20,
            "data.symbolic_config.dataset_size": count,
        }
        builders[f"{count} classes"] = partial(_growth, changes, options)
    for items in (9, 17, 33):
        changes = {"data.seq_config.seq_len": items}
        builders[f"{items} items"] = partial(_growth, changes, options)
    for size in PACKS:
        builders[f"symbolic, pack of {size}"] = partial(_packed, "symbolic", size, options)
    for size in PACKS[:1]:
        builders[f"28 px, pack of {size}"] = partial(_packed, "28 px", size, options)
    builders["symbolic, whole run"] = partial(_whole_run, options)
    builders["sampler, symbolic"] = partial(_sampling, "symbolic", options)
    builders["sampler, images"] = partial(_sampling, "28 px", options)
    return builders


def _single(name: str, options: Options, engine: str = "auto") -> Case:
    """One run as it is, against the reference-style loop."""
    config = _config(name)
    inputs = _inputs(config, options)
    return Case(
        loop=_ours(config, inputs, engine),
        against={REFERENCE: _reference_loop(config, options)},
        steps=STEPS[name],
        work=_work(config, inputs),
        precision=config.training.precision,
    )


def _packed(name: str, size: int, options: Options) -> Case:
    """Several runs of different seeds and decays as one program, against one of them alone."""
    base = apply_overrides(_config(name), {"optimizer.name": "adamw"})
    configs = [
        apply_overrides(base, {"seed": seed, "optimizer.weight_decay": 1e-3 * seed})
        for seed in range(size)
    ]
    inputs = [_inputs(config, options) for config in configs]
    models, optimizers = zip(*map(build, configs, inputs), strict=True)
    stack = Stack(models)
    records = pack_steps(configs, inputs, stack, StackedOptimizer(stack, optimizers))
    return Case(
        loop=lambda steps: _advance(records, steps),
        against={"one run": _ours(configs[0], inputs[0], "eager")},
        steps=max(1, STEPS[name] // size),
        runs=size,
        work=_work(configs[0], inputs[0]),
    )


def _growth(changes: dict[str, Any], options: Options) -> Case:
    """How cost grows: symbols with more classes or items, against computing all logits."""
    config = apply_overrides(_config("symbolic"), changes)
    full = apply_overrides(config, {"training.query_only_head": False})
    inputs = _inputs(config, options)
    return Case(
        loop=_ours(config, inputs, "auto"),
        against={"all logits": _ours(full, inputs, "auto")},
        steps=STEPS["symbolic"],
        work=_work(config, inputs),
    )


def _yardstick(name: str, options: Options) -> Case:
    """The reference-style loop against bare loops over the same batches."""
    config = _config(name)
    return Case(
        loop=_reference_loop(config, options),
        against={
            "bare loop, batches drawn alike": _bare_loop(config, options, ready=False),
            "bare loop, batches ready-made": _bare_loop(config, options, ready=True),
        },
        steps=STEPS[name],
    )


def _whole_run(options: Options) -> Case:
    """A run with sampling, logs and bookkeeping, against a bare loop over ready-made batches."""
    config = _config("symbolic")

    def whole(steps: int) -> None:
        with scratch_folder() as folder:
            settings = {"training_steps": steps, "evaluation.batches": 1}
            runtime = Runtime(
                device=str(options.device),
                threads=options.threads,
                tracker="none",
                show_progress=False,
            )
            run(apply_overrides(config, settings), runtime, path=folder / "run")

    bare = _bare_loop(config, options, ready=True, query_only=True)
    return Case(
        loop=whole,
        against={"bare loop, batches ready-made": bare},
        steps=100,
        note="start, one evaluation and one checkpoint included",
    )


def _sampling(name: str, options: Options) -> Case:
    """Batches as indices: the vectorised sampler against the reference's generator."""
    config = _config(name)
    fast, exact = (
        _dataset(apply_overrides(config, {"data.sampler": sampler}), options)
        for sampler in ("vectorized", "exact")
    )

    def loop(dataset: SequenceDataset) -> Loop:
        number = itertools.count()
        return lambda steps: [dataset[next(number)] for _ in range(steps)]

    return Case(
        loop=loop(fast),
        against={"exact generator": loop(exact)},
        steps=128,
        note="64 batches are drawn at a time, so only multiples of 64 steps are a fair timing",
    )


def _config(name: str) -> IclConfig:
    path, changes = SETTINGS[name]
    return apply_overrides(load_icl_config(path), {"training_steps": ENDLESS, **changes})


def _inputs(config: IclConfig, options: Options) -> IclInputs:
    return load_inputs(config, options.device, data_dir=options.data_dir)


def _dataset(config: IclConfig, options: Options) -> SequenceDataset:
    return _inputs(config, options).dataset("train")


def _ours(config: IclConfig, inputs: IclInputs, engine: str) -> Loop:
    """The steps that a run takes, logs left out."""
    model, optimizer = build(config, inputs)
    config = apply_overrides(config, {"training.engine": engine})
    chosen = resolve_engine(config, inputs, model).engine
    records = training_steps(config, inputs, model, optimizer, engine=chosen)
    return lambda steps: _advance(records, steps)


def _advance(steps: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(steps)


def _reference_loop(config: IclConfig, options: Options) -> Loop:
    """Exact generator, DataLoader without workers, eager, float32, all logits."""
    config = _plain(config)
    inputs = _inputs(config, options)
    model, optimizer = _plain_build(config, inputs)
    records = training_steps(config, inputs, model, optimizer, batches=_drawn(inputs))
    return lambda steps: _advance(records, steps)


def _plain(config: IclConfig) -> IclConfig:
    plain = {
        "data.sampler": "exact",
        "training.precision": "fp32",
        "training.query_only_head": False,
    }
    return apply_overrides(config, plain)


def _plain_build(config: IclConfig, inputs: IclInputs) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model with torch's default memory format and batch normalisation."""
    model, optimizer = build(config, inputs)
    for module in model.modules():
        if isinstance(module, ResNetEncoder):
            module.channels_last = False
        if isinstance(module, DebiasedBatchNorm):
            module.__class__ = TorchBatchNorm
    return model, optimizer


class TorchBatchNorm(DebiasedBatchNorm):
    """The same averages, computed by torch's kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise in training."""
        mean, variance = torch.zeros_like(self.hidden)
        y = nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, EPS)
        n = x.numel() // x.shape[1]
        biased = variance * ((n - 1) / n)
        update_averages([BatchStatistics(self, mean, biased, 1.0)])
        return y


def _drawn(inputs: IclInputs) -> Iterator[Any]:
    """Yield the batches of the exact generator, by way of torch's own loader."""
    loader = DataLoader(inputs.dataset("train"), batch_size=None, sampler=range(ENDLESS))
    channels = inputs.config.preproc.image_channels
    for indices in loader:
        batch = indices.to(inputs.device)
        yield gather_examples(inputs.images, batch, channels=channels, views=inputs.views)


def _bare_loop(
    config: IclConfig, options: Options, *, ready: bool, query_only: bool = False
) -> Loop:
    """A training loop written by hand: nothing but batch, forward, backward and update."""
    config = apply_overrides(_plain(config), {"training.query_only_head": query_only})
    inputs = _inputs(config, options)
    model, optimizer = _plain_build(config, inputs)
    loss_fn = make_loss(config, inputs.device)
    schedule = warmup_rsqrt(config.optimizer.max_lr, config.optimizer.warmup_steps)
    source = _drawn(inputs)
    batches = itertools.cycle(list(itertools.islice(source, 8))) if ready else source
    completed = itertools.count()
    model.train()

    def loop(steps: int) -> None:
        for step in itertools.islice(completed, steps):
            optimizer.param_groups[0]["lr"] = schedule(step)
            optimizer.zero_grad(set_to_none=True)
            loss_fn(model, next(batches))[0].backward()
            optimizer.step()

    return loop


def _work(config: IclConfig, inputs: IclInputs) -> Work:
    model, _ = build(config, inputs)
    batch = next(inputs.training_batches(0))
    loss_fn = make_loss(config, inputs.device)
    return count_work(lambda: loss_fn(model.train(), batch)[0], model.parameters())

"""The CIFAR cases of ``scripts/benchmark.py``: the data path, and a training step by mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from optimizer_quality.data import TorchvisionBatches
from optimizer_quality.models import build_model
from roofline import count_work
from timing import Case, Cases, Loop, Options, training_loop
from trainrig.data.device_loader import Augmentation, ImageBatches, Layout
from trainrig.data.shapes import draw_shapes
from trainrig.device import Precision
from trainrig.optim import make_optimizer
from trainrig.vectorized import Stack, StackedOptimizer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
MODEL, BATCH_SIZE, PACK = "resnet8", 128, 8
YARDSTICK = "fp32 NCHW"
#: Name → (channels_last, precision, compiled).
MODES: dict[str, tuple[bool, Precision, bool]] = {
    YARDSTICK: (False, "fp32", False),
    "fp32 channels_last": (True, "fp32", False),
    "fp32 channels_last compile": (True, "fp32", True),
    "bf16 channels_last": (True, "bf16", False),
}


def cases(options: Options) -> Cases:
    """Return the cases by name; see ``timing``."""
    builders: dict[str, Callable[[], Case]] = {"data path": _data_path}
    for mode in MODES:
        builders[f"{MODEL} {mode}"] = partial(_mode, mode, options)
    builders[f"{MODEL} pack of {PACK}"] = partial(_pack, options)
    return builders


def _data_path() -> Case:
    """Batches cropped, flipped and normalised: resident images against torchvision's pipeline."""
    images, labels = draw_shapes(BATCH_SIZE * 10, seed=0)
    layout = Layout(batch_size=BATCH_SIZE, mean=MEAN, std=STD)
    loops = [
        _drain(kind(images, labels, torch.arange(len(labels)), layout, Augmentation(seed=0)))
        for kind in (ImageBatches, TorchvisionBatches)
    ]
    return Case(loop=loops[0], against={"torchvision, no workers": loops[1]}, steps=10)


def _mode(mode: str, options: Options) -> Case:
    precision = MODES[mode][1]
    yardstick = _loss_and_parameters(*MODES[YARDSTICK], options.device)
    work = count_work(*yardstick, state_per_parameter=1)
    return Case(
        loop=_training(*MODES[mode], options.device),
        against={YARDSTICK: _training(*MODES[YARDSTICK], options.device)},
        steps=2,
        work=work,
        precision=precision,
    )


def _pack(options: Options) -> Case:
    """Runs of several seeds trained as one program, against one run alone."""
    members = [
        build_model(MODEL, 10, in_channels=3, precision="fp32", channels_last=False)
        for _ in range(PACK)
    ]
    stack = Stack([member.to(options.device) for member in members]).train()
    optimizers = [
        make_optimizer("sgd", member.parameters(), lr=0.01, momentum=0.9) for member in members
    ]
    optimizer = StackedOptimizer(stack, optimizers)
    images = torch.randn(PACK, BATCH_SIZE, 3, 32, 32, device=options.device)
    labels = (torch.arange(BATCH_SIZE, device=options.device) % 10).repeat(PACK)

    def loop(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            logits = stack(images).flatten(0, 1)
            (nn.functional.cross_entropy(logits, labels) * PACK).backward()
            optimizer.step()

    alone = {"fp32 channels_last, one run": _training(True, "fp32", False, options.device)}
    return Case(loop=loop, against=alone, steps=2, runs=PACK)


def _drain(batches: ImageBatches | TorchvisionBatches) -> Loop:
    """Take batches, epoch after epoch."""

    def endless() -> Iterator[object]:
        while True:
            yield from batches

    stream = endless()

    def loop(steps: int) -> None:
        for _ in range(steps):
            next(stream)

    return loop


def _loss_and_parameters(
    channels_last: bool, precision: Precision, compiled: bool, device: torch.device
) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """Return the loss on fixed random images, and what is trained."""
    model = build_model(
        MODEL, 10, in_channels=3, precision=precision, channels_last=channels_last
    ).train()
    model.to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(BATCH_SIZE, 3, 32, 32, device=device).contiguous(memory_format=layout)
    labels = torch.arange(BATCH_SIZE, device=device) % 10
    forward = torch.compile(model, dynamic=False) if compiled else model
    return lambda: nn.functional.cross_entropy(forward(images), labels), list(model.parameters())


def _training(
    channels_last: bool, precision: Precision, compiled: bool, device: torch.device
) -> Loop:
    loss, parameters = _loss_and_parameters(channels_last, precision, compiled, device)
    return training_loop(loss, make_optimizer("sgd", parameters, lr=0.01, momentum=0.9))

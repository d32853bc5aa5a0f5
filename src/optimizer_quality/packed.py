"""Several runs of one optimizer and network as one program: seeds, learning rates, weight decays.

The members' networks are stacked (``trainrig.vectorized``) and stepped together; each keeps its own
images, order, optimizer state, logs, checkpoints and final files, and is validated alone. The
numbers equal those of separate runs up to rounding. A member whose numbers are no longer finite
ends as ``diverged``, the others continue.

Legend: R members, B images per batch, K classes, L layers with parameters of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import make_loaders
from optimizer_quality.epoch import PackSums, layers_of
from optimizer_quality.experiment import (
    LENGTH,
    Runtime,
    Work,
    make_model,
    opened,
    prepare,
    write_final_files,
)
from optimizer_quality.train import batches, write_rows
from trainrig.loop import train_steps
from trainrig.optim import resolve_optimizer
from trainrig.pack_recorder import PackRecorder, keep_length_of_diverged
from trainrig.packs import bytes_per_run
from trainrig.recorder import Recorder
from trainrig.updates import make_update
from trainrig.vectorized import Stack, StackedOptimizer
from trainrig.vectorized.optim import ELEMENTWISE
from trainrig.vectorized.stack import Slot


def check_packable(config: CifarConfig) -> None:
    """Refuse what cannot be packed, before anything is read.

    Raises:
        ValueError: an optimizer that does not treat every value alone.
    """
    name = config.optimizer.type
    if resolve_optimizer(name) not in ELEMENTWISE:
        accepted = ", ".join(sorted(known.__name__.lower() for known in ELEMENTWISE))
        raise ValueError(f"optimizer {name!r}: cannot be packed (accepted: {accepted}); --pack 1")


def bytes_of(config: CifarConfig, device: torch.device) -> int:
    """Return what one run adds to a pack: its images, and ``trainrig.packs.bytes_per_run``."""
    loaders = make_loaders(config, device)
    model = make_model(config, loaders.images.train_images.shape[1]).to(device).train()
    images, labels = next(iter(loaders.train))
    step = bytes_per_run(
        model, lambda: nn.functional.cross_entropy(model(images), labels), images.nbytes
    )
    return step + loaders.images.train_images.nbytes + loaders.images.test_images.nbytes


def run_pack(places: Sequence[tuple[CifarConfig, Path]], runtime: Runtime) -> str:
    """Train all runs together, each in its own directory, resuming what is there.

    A run that has ended already keeps its place and is left as it is: with another number of runs
    the others would meet other rounding.

    Args:
        places: configuration and run directory of each member. They may differ in ``seed`` and in
            the settings of their optimizer.
        runtime: of all members.

    Returns:
        ``complete`` if all members are, else ``diverged``.

    Raises:
        ValueError, FileNotFoundError, CheckpointError, OSError: as ``experiment.run``.
        RuntimeError, MemoryError: out of memory; see ``trainrig.packs.or_out_of_memory``.
    """
    names = [path.name for _, path in places]
    works = [prepare(config, path, runtime, path / "logs") for config, path in places]
    with ExitStack() as stack:
        records = []
        for work in works:
            work.environment["pack"] = names
            if not runtime.overwrite:
                keep_length_of_diverged(work.path, work.identity, LENGTH)
            records.append(stack.enter_context(opened(work)))
        _train(works, records)
    statuses = {record.result.status for record in records}
    return "complete" if statuses == {"complete"} else "diverged"


def _train(works: Sequence[Work], records: Sequence[Recorder]) -> None:
    """Perform the remaining steps of all members, then write their final files."""
    models = [work.model for work in works]
    optimizers = [work.optimizer for work in works]
    loaders = [work.loaders.train for work in works]
    pack, sums = PackRecorder(records), PackSums(models, len(loaders[0]))
    parts = zip(optimizers, sums.members, strict=True)
    start = pack.restore(models, [{"optimizer": own, "epoch": epoch} for own, epoch in parts])
    stack = Stack(models)
    pack.follow(StackedOptimizer(stack, optimizers))
    layers = [
        [slot for name, slot in stack.slots.items() if name.rpartition(".")[0] == layer]
        for layer in layers_of(models[0])
    ]

    def measure() -> Tensor:
        return _gradient_norms(stack.flat.grad, layers)

    steps = train_steps(
        stack,
        pack.optimizer,
        zip(*(batches(loader, start) for loader in loaders), strict=True),
        _losses,
        schedule=None,  # the rates are the optimizers'
        total_steps=records[0].total,
        start_step=start,
        update=make_update(
            pack.optimizer, measure=lambda: _gradient_norms(stack.flat.grad, layers)
        ),
    )
    for step in steps:
        number = step.step
        sums.add(step.output, step.measured)
        if records[0].logs(number):

            def write(r: int, record: Recorder, number: int = number) -> None:
                own = works[r]
                evaluated = own.loaders.val, own.loaders.test
                write_rows(record, number, sums.members[r], own.model, evaluated, own.config)

            pack.write(write)
        pack.settle(number)
        if not pack.running:
            return
    for r, record in pack.running.items():
        write_final_files(works[r], record)
        record.end()


def _losses(
    stack: Stack, drawn: tuple[tuple[Tensor, Tensor], ...]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the losses (R,), and losses of images (R, B), logits (R, B, K), labels (R, B)."""
    images, labels = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    # Grouped convolutions have members and channels in one axis: no channels_last here.
    logits = stack(images.contiguous())
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none"
    ).view_as(labels)
    return losses.mean(dim=1), (losses.detach(), logits.detach(), labels)


def _gradient_norms(gradient: Tensor | None, layers: Sequence[Sequence[Slot]]) -> Tensor:
    """Return each member's gradient norm by layer, then of all, (R, L + 1)."""
    assert gradient is not None  # of the step being done
    squares = []
    for slots in layers:
        parts = [gradient[:, slot.start : slot.start + slot.room] for slot in slots]
        norms = [torch.linalg.vector_norm(part, dim=1).double().square() for part in parts]
        squares.append(torch.stack(norms).sum(dim=0))
    by_layer = torch.stack(squares, dim=1)
    return torch.cat([by_layer, by_layer.sum(dim=1, keepdim=True)], dim=1).sqrt()

"""Batches of sequences for training and evaluation, from indices to what the model reads.

Batch k of a dataset depends on (seed, k) alone, so the order cannot depend on the number of
worker processes and a resumed run continues by asking for its next step.

Shape legend: B batch, L items (the query last), K classes, N drawings per class, C, H, W image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pytorch_port.config.schema import DataConfig
from pytorch_port.data.batch import SequenceBatch, gather_examples
from pytorch_port.data.examples import IndexExamples
from pytorch_port.data.generator import SeqGenerator
from pytorch_port.data.modes import make_partition, mode_plan
from pytorch_port.data.sampler import IndexBatch, IndexSampler, SequenceSpec
from trainrig.errors import nearest
from trainrig.seeding import derive_seed

Sampler = Literal["vectorized", "device", "exact"]
SAMPLERS: tuple[Sampler, ...] = ("vectorized", "device", "exact")


def make_spec(
    mode: str,
    config: DataConfig,
    n_data_classes: int,
    n_exemplars: int = 1,
    num_classes: int | None = None,
) -> SequenceSpec:
    """Build the spec of a mode (``bursty``, ``eval_fewshot_holdout``, ...) from a configuration.

    Args:
        mode: see ``modes.MODES``.
        config: partition and sequence settings.
        n_data_classes: classes in the image bank, or size of the symbolic set.
        n_exemplars: drawings per class; 1 for symbols.
        num_classes: size of the head, to check labels against.

    Raises:
        ValueError: an unknown mode, or settings that the data or the head cannot serve.
    """
    classes = make_partition(config.generator_config, n_data_classes)
    plan = mode_plan(mode, config.seq_config, classes)
    return SequenceSpec(classes, plan, n_exemplars, num_classes)


class SequenceDataset(Dataset[IndexBatch]):
    """Map-style: item k is batch k, as indices.

    Args:
        spec: what to draw.
        batch_size: B.
        seed: of this purpose (derive one per split).
        sampler: ``vectorized`` draws on the CPU, so that all devices see the same sequences;
            ``device`` draws alike on ``device``; ``exact`` = the reference's generator, each batch
            from freshly seeded streams.
        n_batches: length; indexing beyond it is an ``IndexError``.
        device: where ``device`` draws.

    Raises:
        ValueError: an unknown sampler, or sizes < 1.
    """

    def __init__(
        self,
        spec: SequenceSpec,
        batch_size: int,
        seed: int,
        *,
        sampler: Sampler = "vectorized",
        n_batches: int = 2**31,
        device: torch.device | str = "cpu",
    ) -> None:
        if sampler not in SAMPLERS:
            hint = nearest(sampler, SAMPLERS)
            raise ValueError(f"sampler: unknown {sampler!r}{hint}; accepted: {', '.join(SAMPLERS)}")
        if batch_size < 1 or n_batches < 0:
            raise ValueError(
                f"batch_size, n_batches: {batch_size}, {n_batches}; at least 1 and 0 are needed"
            )
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.sampler = sampler
        self.n_batches = n_batches
        self.fast: IndexSampler | None = None
        if sampler != "exact":
            where = device if sampler == "device" else "cpu"
            self.fast = IndexSampler(spec, batch_size, seed, where)
        else:
            drawings = spec.n_exemplars if spec.n_exemplars > 1 else None
            source = IndexExamples(spec.partition.n_data_classes, drawings)
            self._exact = SeqGenerator(source, spec.partition)

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, step: int) -> IndexBatch:
        if not 0 <= step < self.n_batches:
            raise IndexError(f"batch {step} of a dataset of {self.n_batches}")
        if self.fast is not None:
            return self.fast.batch(step)
        self._exact.reseed(derive_seed(self.seed, "exact", step))
        records = [self._exact.draw(self.spec.plan) for _ in range(self.batch_size)]

        def stack(key: str) -> Tensor:
            rows = np.stack([record[key] for record in records])
            return torch.from_numpy(rows.astype(np.int64))

        return IndexBatch(stack("class_id"), stack("exemplar_id"), stack("label"), stack("is_rare"))


class SequenceLoader:
    """Iterates over steps start .. stop-1 of a dataset; see ``create_sequence_dataloader``."""

    def __init__(
        self,
        dataset: SequenceDataset,
        images: Tensor | None,
        steps: range,
        *,
        num_workers: int,
        device: torch.device,
        gather_options: dict[str, Any],
        joined: int = 1,
    ) -> None:
        self.dataset = dataset
        self.images = images
        self.steps = steps
        self.num_workers = num_workers
        self.device = device
        self.gather_options = gather_options
        self.joined = joined

    def __len__(self) -> int:
        return -(-len(self.steps) // self.joined)

    def __iter__(self) -> Iterator[SequenceBatch]:
        random_pixels = self.gather_options["noise_scale"] or self.gather_options["random_images"]
        batches = self._index_batches()
        if self.joined > 1:
            batches = _join(batches, self.joined)
        for step, indices in zip(self.steps[:: self.joined], batches, strict=True):
            generator = None
            if random_pixels and self.images is not None:
                generator = torch.Generator(self.device)
                generator.manual_seed(derive_seed(self.dataset.seed, "pixels", step))
            yield gather_examples(
                self.images,
                indices.to(self.device),
                generator=generator,
                **self.gather_options,
            )

    def _index_batches(self) -> Iterator[IndexBatch]:
        if self.num_workers == 0 or self.dataset.fast is not None:
            # The fast samplers draw thousands of batches at once, so a process would not pay; and
            # their torch.Generator cannot be sent to one that is spawned.
            return (self.dataset[step] for step in self.steps)
        own = torch.Generator()  # or the loader would draw from the global stream
        own.manual_seed(derive_seed(self.dataset.seed, "loader"))
        loader = DataLoader(
            self.dataset,
            batch_size=None,
            sampler=self.steps,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=partial(seed_worker, self.dataset.seed),
            generator=own,
            prefetch_factor=4,
        )
        return islice(loader, len(self.steps))


def create_sequence_dataloader(  # noqa: PLR0913 - one argument per property of the batches
    dataset: SequenceDataset,
    images: Tensor | None = None,
    *,
    start_step: int = 0,
    n_steps: int | None = None,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    channels: int = 1,
    noise_scale: float = 0.0,
    views: Tensor | None = None,
    joined: int = 1,
) -> SequenceLoader:
    """Return an iterable over the batches of steps ``start_step`` and following.

    Indices are drawn (by the exact sampler in ``num_workers`` processes, by the others in this
    one), copied to ``device`` and turned into examples there. The same batches come in the same
    order whatever ``num_workers``.

    Args:
        dataset: what to draw.
        images: the bank, see ``gather_examples``; moved to ``device`` if it is elsewhere.
        start_step: first batch, 0 in a fresh run.
        n_steps: how many; to the dataset's end by default.
        num_workers: processes in which the exact sampler draws; 0 draws in this one.
        device: of the batches.
        channels: repeat the grey channel this often.
        noise_scale: standard deviation of pixel noise; a function of (seed, step) too.
        views: of every image, see ``gather_examples``.
        joined: as many batches are yielded as one, the last one may be smaller; not with random
            pixels, which depend on the number of a batch.

    Raises:
        ValueError: a bank that does not fit the dataset, or steps outside it.
    """
    spec = dataset.spec
    stop = dataset.n_batches if n_steps is None else start_step + n_steps
    if not 0 <= start_step <= stop <= dataset.n_batches:
        raise ValueError(
            f"steps: {start_step}..{stop} asked of a dataset of {dataset.n_batches} batches"
            "; stay within it"
        )
    device = torch.device(device)
    if images is not None:
        expected = spec.partition.n_data_classes, spec.n_exemplars
        held = images.shape[0] * (1 if views is None else len(views)), images.shape[1]
        if held != expected:
            raise ValueError(
                f"images: {held} classes and drawings, but the sequences are "
                f"drawn from {expected}; build the spec from the same bank"
            )
        images = images.to(device)
    elif spec.plan.randomly_generate_rare:
        raise ValueError(
            "randomly_generate_rare: true for symbols; random images need images "
            "(example_type 'omniglot')"
        )
    return SequenceLoader(
        dataset,
        images,
        range(start_step, stop),
        num_workers=num_workers,
        device=device,
        gather_options={
            "channels": channels,
            "noise_scale": noise_scale,
            "random_images": spec.plan.randomly_generate_rare,
            "views": views if images is not None else None,
        },
        joined=joined,
    )


def _join(batches: Iterator[IndexBatch], count: int) -> Iterator[IndexBatch]:
    while parts := [batch.tensors() for batch in islice(batches, count)]:
        yield IndexBatch(*map(torch.cat, zip(*parts, strict=True)))


def seed_worker(seed: int, worker: int) -> None:
    """Seed the global streams of a worker process; the batches themselves do not use them."""
    own = derive_seed(seed, "worker", worker)
    random.seed(own)
    np.random.seed(own % 2**32)
    torch.manual_seed(own)
    torch.set_num_threads(1)


def _as_it_is(batch: Any) -> Any:
    return batch

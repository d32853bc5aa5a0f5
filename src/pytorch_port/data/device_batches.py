"""Training batches made on the device, by operations that a CUDA graph can hold.

Index tensors of many steps lie on the device; a step cuts its rows out of them by a number that
lies there too, and gathers the images. The batches are those of ``IclInputs.training_batches``.
"""

from __future__ import annotations

import torch

from pytorch_port.data.batch import SequenceBatch, gather_examples
from pytorch_port.data.inputs import IclInputs
from pytorch_port.data.sampler import IndexBatch
from trainrig.seeding import derive_seed


class DeviceBatches:
    """A ``trainrig.engine.BatchSource`` of a run's training sequences.

    Args:
        inputs: of the run.

    Raises:
        ValueError: the exact sampler, which draws in Python.
    """

    def __init__(self, inputs: IclInputs) -> None:
        dataset = inputs.dataset("train")
        if dataset.fast is None:
            raise ValueError(
                "--engine graph: the exact sampler draws in Python, outside any graph; "
                "use --sampler vectorized or device, or --engine eager"
            )
        self._inputs, self._seed, self._sampler = inputs, dataset.seed, dataset.fast
        device = inputs.device
        self._chunk_number = -1
        self._chunk: IndexBatch | None = None
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._offsets = torch.arange(dataset.batch_size, device=device)
        noise = inputs.config.data.generator_config.noise_scale
        self._noise_scale = noise if inputs.images is not None else 0.0
        self._random_images = dataset.spec.plan.randomly_generate_rare
        random_pixels = inputs.images is not None and (self._noise_scale or self._random_images)
        self._pixels = torch.Generator(device) if random_pixels else None
        self.generators = (self._pixels,) if self._pixels is not None else ()

    def prepare(self, number: int) -> None:
        """Let the next ``make`` return batch ``number``; waits for nothing."""
        chunk, row = divmod(number, self._sampler.steps_per_chunk)
        if chunk != self._chunk_number:
            self._load(chunk)
        self._first.fill_(row * len(self._offsets))
        if self._pixels is not None:
            self._pixels.manual_seed(derive_seed(self._seed, "pixels", number))

    def _load(self, number: int) -> None:
        """Draw a chunk and put it where the last one lay, in the order of the device's stream."""
        drawn, device = self._sampler.chunk(number), self._inputs.device
        if device.type == "cuda" and drawn.label.device.type == "cpu":
            drawn = drawn.pinned()
        if self._chunk is None:
            self._chunk = IndexBatch(*(torch.empty_like(x, device=device) for x in drawn.tensors()))
        self._chunk.copy_(drawn)
        self._chunk_number = number

    def make(self) -> SequenceBatch:
        """Return the batch that was prepared."""
        if self._chunk is None:
            raise RuntimeError("DeviceBatches.make: call prepare first")
        return gather_examples(
            self._inputs.images,
            self._chunk.rows(self._first + self._offsets),
            channels=self._inputs.config.preproc.image_channels,
            noise_scale=self._noise_scale,
            random_images=self._random_images,
            generator=self._pixels,
            views=self._inputs.views,
        )

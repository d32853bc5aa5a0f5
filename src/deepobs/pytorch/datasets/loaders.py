"""Loaders over arrays that live on the device: every batch a pure function of (seed, pass, index).

A loader is an iterable whose every ``iter()`` is one pass. The passes are counted; order and
augmentation of pass p depend on the seed, the loader's name and p alone, so a resumed run continues
in the middle of a pass with nothing to restore but two integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainrig.seeding import derive_seed

Batch = tuple[Tensor, ...]
#: (raw batch, generator on the batch's device) → batch
Transform = Callable[[Batch, torch.Generator], Batch]


class Loader:
    """Base of all loaders: counts passes and knows how many full batches one has.

    Attributes:
        passes: passes begun so far.
        seed: source of all randomness.
        rows: of each batch, those that this process takes; all, unless several train one run.
    """

    rows = slice(None)

    def __init__(self, name: str, n_batches: int, seed: int) -> None:
        self.name, self.n_batches, self.seed, self.passes = name, n_batches, seed, 0

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        return self.batches(self.passes - 1)

    def batches(self, pass_index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one pass from the ``start``-th on, without counting it."""
        raise NotImplementedError

    def _generator(self, device: torch.device, *parts: int | str) -> torch.Generator:
        generator = torch.Generator(device)
        generator.manual_seed(derive_seed(self.seed, self.name, *parts))
        return generator


class ArrayLoader(Loader):
    """Full batches of arrays, in file order or freshly shuffled each pass.

    Args:
        name: part of the random stream's name.
        arrays: tensors of equal length, on the device.
        batch_size: examples per batch; an incomplete last batch is left out.
        seed: source of the order and of the augmentation.
        shuffle: draw an order; a new one for each pass where ``reshuffle`` is set.
        reshuffle: False repeats the first pass's order, as TensorFlow does where an iterator with a
            fixed seed is initialised again for each epoch. It shows in the published results:
            quadratic_deep with Momentum ends at 87.045 +- 0.024, and at 88.35 +- 0.47 with new
            orders, which drop other rows in each epoch.
        transform: applied to each batch; gets a generator of its own.
        limit: use at most this many batches of a pass.
        subset: indices (N,) to which the loader is restricted.
    """

    def __init__(  # noqa: PLR0913 - keyword switches
        self,
        name: str,
        arrays: Batch,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = False,
        reshuffle: bool = True,
        transform: Transform | None = None,
        limit: int | None = None,
        subset: Tensor | None = None,
    ) -> None:
        size = len(arrays[0]) if subset is None else len(subset)
        n_batches = size // batch_size
        super().__init__(name, n_batches if limit is None else min(limit, n_batches), seed)
        self.arrays, self.batch_size, self.size = arrays, batch_size, size
        self.shuffle, self.transform, self.subset = shuffle, transform, subset
        # The generator of a CPU stream is cheap to reseed; one object serves all batches.
        self.reshuffle = reshuffle
        self._stream = torch.Generator(arrays[0].device)

    def order(self, pass_index: int) -> Tensor | None:
        """Return the indices of a pass on the device, or None for file order."""
        if not self.shuffle:
            return self.subset
        number = pass_index if self.reshuffle else 0
        generator = self._generator(torch.device("cpu"), "order", number)
        order = torch.randperm(self.size, generator=generator).to(self.arrays[0].device)
        return order if self.subset is None else self.subset[order]

    def batches(self, pass_index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one pass from the ``start``-th on."""
        order = self.order(pass_index)
        for index in range(start, self.n_batches):
            rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
            if order is None:
                batch = tuple(array[rows] for array in self.arrays)
            else:
                chosen = order[rows]
                batch = tuple(array.index_select(0, chosen) for array in self.arrays)
            if self.transform is not None:
                seed = derive_seed(self.seed, self.name, "transform", pass_index, index)
                batch = self.transform(batch, self._stream.manual_seed(seed))
            yield tuple(part[self.rows] for part in batch)


class TextLoader(Loader):
    """Consecutive chunks of a text: row r of batch k continues row r of batch k - 1.

    Args:
        name: for messages.
        characters: int64 (N,) on the device.
        batch_size: rows.
        seq_length: characters per row and batch.
        limit: use at most this many batches of a pass.
    """

    def __init__(
        self,
        name: str,
        characters: Tensor,
        batch_size: int,
        seq_length: int,
        limit: int | None = None,
    ) -> None:
        total = (len(characters) - 1) // (batch_size * seq_length)
        super().__init__(name, total if limit is None else min(limit, total), seed=0)
        used = total * batch_size * seq_length
        self.x = characters[:used].reshape(batch_size, -1)
        self.y = characters[1 : used + 1].reshape(batch_size, -1)
        self.seq_length, self.size = seq_length, len(characters)

    def batches(self, pass_index: int, start: int = 0) -> Iterator[Batch]:
        """Yield ``(x, y)``, (B, T) each; the same in every pass."""
        for index in range(start, self.n_batches):
            columns = slice(index * self.seq_length, (index + 1) * self.seq_length)
            yield self.x[:, columns].contiguous(), self.y[:, columns].contiguous()

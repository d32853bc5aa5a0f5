"""Noise for the two-dimensional problems: standard normal in training, zero in testing."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from deepobs.pytorch.datasets.dataset import DataSet
from deepobs.pytorch.datasets.loaders import ArrayLoader, Batch

SIZE = 10_000


class two_d(DataSet):  # noqa: N801 - DeepOBS name
    """10,000 pairs, batches ``(x, y)`` of shape (B,) each; the test noise is zero."""

    name = "two_d"
    train: ArrayLoader
    test: ArrayLoader

    def make_loaders(self) -> None:
        """Draw x, then y, from one stream."""
        generator = np.random.RandomState(42)
        x, y = (generator.normal(0.0, 1.0, SIZE).astype(np.float32) for _ in range(2))
        train, zeros = self._pair(x, y), self._pair(np.zeros_like(x), np.zeros_like(y))
        make = partial(ArrayLoader, batch_size=self.batch_size, seed=self.seed)
        again = self.compat == "fixed"
        self.train = make("train", train, shuffle=True, reshuffle=again)
        self.train_eval = make("train_eval", train, shuffle=self.compat == "reference")
        self.test = make("test", zeros)
        if self.compat == "fixed":
            self.valid = make("valid", zeros)

    def _pair(self, x: np.ndarray, y: np.ndarray) -> Batch:
        return tuple(torch.from_numpy(a).to(self.device, self.dtype) for a in (x, y))

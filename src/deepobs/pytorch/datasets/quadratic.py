"""Gaussian points for ``quadratic_deep``, from fixed seeds."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from deepobs.pytorch.datasets.dataset import DataSet
from deepobs.pytorch.datasets.loaders import ArrayLoader

SIZE, DIMENSION, NOISE = 1000, 100, 0.6
SEEDS = {"train": 42, "test": 43, "valid": 44}


class quadratic(DataSet):  # noqa: N801 - DeepOBS name
    """1,000 training and test points, batches ``(x,)`` of shape (B, 100)."""

    name = "quadratic"

    def make_loaders(self) -> None:
        """Draw the points; training evaluation covers the whole training set."""
        make = partial(ArrayLoader, batch_size=self.batch_size, seed=self.seed)
        points = {split: (self._draw(seed),) for split, seed in SEEDS.items()}
        again = self.compat == "fixed"
        self.train = make("train", points["train"], shuffle=True, reshuffle=again)
        # A shuffled pass in the reference, so which rows the incomplete batch drops is random.
        self.train_eval = make("train_eval", points["train"], shuffle=self.compat == "reference")
        self.test = make("test", points["test"])
        if self.compat == "fixed":
            self.valid = make("valid", points["valid"])

    def _draw(self, seed: int) -> torch.Tensor:
        x = np.random.RandomState(seed).normal(0.0, NOISE, (SIZE, DIMENSION)).astype(np.float32)
        return torch.from_numpy(x).to(self.device, self.dtype)

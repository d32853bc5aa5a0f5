"""The 100-dimensional quadratic of ``quadratic_deep`` and its Hessian.

Source: Chaudhari et al., arXiv:1611.01838: 90 small and 10 large eigenvalues. The rotation comes
from the subgroup algorithm (Diaconis, Shahshahani, 1987) with one legacy NumPy stream, which is
made again for each network, so that a second instance has the same Hessian.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

DIMENSION = 100


def random_rotation(dimension: int, generator: np.random.RandomState) -> np.ndarray:
    """Draw a rotation from SO(``dimension``), float64."""
    angle = 2 * np.pi * generator.uniform()
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for size in range(2, dimension):
        v = generator.normal(size=(size + 1, 1))
        v /= np.linalg.norm(v)
        e = np.zeros_like(v)
        e[0] = 1.0
        x = (e - v) / np.linalg.norm(e - v)
        bordered = np.eye(size + 1)
        bordered[1:, 1:] = rotation
        rotation = bordered - 2.0 * x @ (x.T @ bordered)
    return -rotation


def make_hessian() -> np.ndarray:
    """Return the (100, 100) Hessian behind the published baselines, float64."""
    generator = np.random.RandomState(42)
    eigenvalues = np.concatenate([generator.uniform(0, 1, 90), generator.uniform(30, 60, 10)])
    rotation = random_rotation(DIMENSION, generator)
    return rotation.T @ np.diag(eigenvalues) @ rotation


class Quadratic(nn.Module):
    """0.5 (theta - x)' H (theta - x) for each row x; theta starts at ones."""

    hessian: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1, DIMENSION))
        self.register_buffer(
            "hessian", torch.from_numpy(make_hessian()).to(torch.get_default_dtype())
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return per-example losses (B,) of rows (B, 100)."""
        difference = self.theta - x
        return 0.5 * ((difference @ self.hessian) * difference).sum(1)

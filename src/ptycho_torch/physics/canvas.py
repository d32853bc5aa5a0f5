"""An object on its pixel grid: where a scan's patches are read from and written to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Canvas of ``shape`` (H, W) whose pixel [0, 0] lies on the coordinate (x0, y0)."""

    shape: tuple[int, int]
    x0: float
    y0: float

    def pixels(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) coordinates (x, y) → canvas pixels (x, y)."""
        return coords - np.array([self.x0, self.y0])

    @staticmethod
    def around(coords: np.ndarray, size: int) -> Grid:
        """The smallest grid that holds all frames, centred on the bounding box's midpoint.

        Pixel (L-1)/2 lies on the midpoint and L = ⌈extent⌉ + N, as a program that builds the
        object from the positions alone places it.
        """
        low, high = coords.min(0), coords.max(0)
        middle = (low + high) / 2
        width, height = (math.ceil(float(v)) + size for v in high - low)
        return Grid(
            (height, width), float(middle[0] - (width - 1) / 2), float(middle[1] - (height - 1) / 2)
        )

    @staticmethod
    def of(coords: np.ndarray, size: int, shape: tuple[int, int] | None = None) -> Grid:
        """The grid of an object of known shape, or the one around the positions.

        Raises:
            ValueError: a position lies outside an object of the given shape.
        """
        if shape is None:
            return Grid.around(coords, size)
        height, width = shape
        outside = (coords < 0).any(1) | (coords[:, 0] > width) | (coords[:, 1] > height)
        if outside.any():
            row = int(np.nonzero(outside)[0][0])
            raise ValueError(
                f"positions: row {row} at (x, y) = ({coords[row, 0]:.1f}, {coords[row, 1]:.1f}) px "
                f"lies outside the {height}x{width} object; drop objectGuess or shift the positions"
            )
        return Grid((height, width), 0.0, 0.0)

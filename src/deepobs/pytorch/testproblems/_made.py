"""Problems of data sets that the suite does not have: ``<data set>_<network>``."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from deepobs.pytorch.datasets.image_set import image_set
from deepobs.pytorch.testproblems._2c2d import Net2c2d
from deepobs.pytorch.testproblems._3c3d import Net3c3d
from deepobs.pytorch.testproblems._families import Classification
from deepobs.pytorch.testproblems._logreg import LogReg
from deepobs.pytorch.testproblems._mlp import MLP
from trainrig.data.catalogue import Images, image_sets

#: Network → what makes it for a set; None where it does not fit the images.
NETWORKS: dict[str, Callable[[Images], Callable[[], nn.Module] | None]] = {
    "logreg": lambda images: lambda: LogReg(images.n_classes, math.prod(images.shape)),
    "mlp": lambda images: lambda: MLP(images.n_classes, math.prod(images.shape)),
    "2c2d": lambda images: (
        (lambda: Net2c2d(images.n_classes)) if images.shape == (1, 28, 28) else None
    ),
    "3c3d": lambda images: (
        (lambda: Net3c3d(images.n_classes)) if images.shape == (3, 32, 32) else None
    ),
}


_MADE: dict[str, type[Classification]] = {}


def make_problem(name: str) -> type[Classification] | None:
    """Return the problem ``<data set>_<network>`` without regulariser; None if there is none.

    >>> make_problem("synthetic_3c3d").__name__, make_problem("synthetic_2c2d")
    ('synthetic_3c3d', None)
    """
    if name in _MADE:
        return _MADE[name]
    set_name, _, network = name.rpartition("_")
    images = image_sets()[set_name].images if set_name in image_sets() else None
    make = NETWORKS[network](images) if images and network in NETWORKS else None
    if make is None:
        return None
    members = {
        "__doc__": f"Cross-entropy without regulariser on {set_name}.",
        "dataset": image_set(set_name),
        "make_net": lambda self: make(),
    }
    return _MADE.setdefault(name, type(name, (Classification,), members))

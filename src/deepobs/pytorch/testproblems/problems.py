"""Problems that are a data set, a network and an L2 factor: the published ones, and of any set."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from deepobs.pytorch.datasets import cifar10, cifar100, fmnist, imagenet, mnist, svhn
from deepobs.pytorch.datasets.image_set import image_set
from deepobs.pytorch.testproblems._2c2d import Net2c2d
from deepobs.pytorch.testproblems._3c3d import Net3c3d
from deepobs.pytorch.testproblems._allcnnc import AllCNNC
from deepobs.pytorch.testproblems._families import (
    AllKernels,
    Autoencoding,
    Classification,
    ConvKernels,
    TwoDimensional,
)
from deepobs.pytorch.testproblems._logreg import LogReg
from deepobs.pytorch.testproblems._mlp import MLP
from deepobs.pytorch.testproblems._two_d import TwoD, beale, branin, rosenbrock
from deepobs.pytorch.testproblems._vae import VAE
from deepobs.pytorch.testproblems._vgg import VGG
from deepobs.pytorch.testproblems._wrn import WRN
from deepobs.pytorch.testproblems.testproblem import TestProblem
from trainrig.data.catalogue import Images, image_sets

#: Problem → family, data set (None: the family's own), network, L2 factor (None: no L2 term).
TABLE: dict[str, tuple[type[TestProblem], Any, Callable[[], nn.Module], float | None]] = {
    "cifar100_3c3d": (AllKernels, cifar100, partial(Net3c3d, 100), 2e-3),
    "cifar100_allcnnc": (ConvKernels, cifar100, partial(AllCNNC, 100), 5e-4),
    "cifar100_vgg16": (ConvKernels, cifar100, partial(VGG, 16, 100), 5e-4),
    "cifar100_vgg19": (ConvKernels, cifar100, partial(VGG, 19, 100), 5e-4),
    "cifar100_wrn164": (AllKernels, cifar100, partial(WRN, 2, 4, 100), 5e-4),
    "cifar100_wrn404": (AllKernels, cifar100, partial(WRN, 6, 4, 100), 5e-4),
    "cifar10_3c3d": (AllKernels, cifar10, partial(Net3c3d, 10), 2e-3),
    "cifar10_vgg16": (ConvKernels, cifar10, partial(VGG, 16, 10), 5e-4),
    "cifar10_vgg19": (ConvKernels, cifar10, partial(VGG, 19, 10), 5e-4),
    "fmnist_2c2d": (Classification, fmnist, partial(Net2c2d, 10), None),
    "fmnist_logreg": (Classification, fmnist, partial(LogReg, 10), None),
    "fmnist_vae": (Autoencoding, fmnist, partial(VAE, 8), None),
    "imagenet_vgg16": (ConvKernels, imagenet, partial(VGG, 16, 1001), 5e-4),
    "imagenet_vgg19": (ConvKernels, imagenet, partial(VGG, 19, 1001), 5e-4),
    "mnist_2c2d": (Classification, mnist, partial(Net2c2d, 10), None),
    "mnist_logreg": (Classification, mnist, partial(LogReg, 10), None),
    "mnist_mlp": (Classification, mnist, partial(MLP, 10), None),
    "mnist_vae": (Autoencoding, mnist, partial(VAE, 8), None),
    "svhn_3c3d": (AllKernels, svhn, partial(Net3c3d, 10), 2e-3),
    "svhn_wrn164": (AllKernels, svhn, partial(WRN, 2, 4, 10), 5e-4),
    "two_d_beale": (TwoDimensional, None, partial(TwoD, beale, (-4.5, 4.5)), None),
    "two_d_branin": (TwoDimensional, None, partial(TwoD, branin, (2.5, 12.5)), None),
    "two_d_rosenbrock": (TwoDimensional, None, partial(TwoD, rosenbrock, (-0.5, 1.5)), None),
}


def _network_for(network: str, images: Images) -> Callable[[], nn.Module] | None:
    """Return what makes a network for a set of images; None where they do not fit it."""
    pixels, k = math.prod(images.shape), images.n_classes
    fitting: dict[str, Callable[[], nn.Module]] = {
        "logreg": partial(LogReg, k, pixels),
        "mlp": partial(MLP, k, pixels),
    }
    if images.shape == (1, 28, 28):
        fitting["2c2d"] = partial(Net2c2d, k)
    if images.shape == (3, 32, 32):
        fitting["3c3d"] = partial(Net3c3d, k)
    return fitting.get(network)


_MADE: dict[str, type[TestProblem]] = {}


def make_problem(name: str) -> type[TestProblem] | None:
    """Return a problem of the table, or ``<data set>_<network>`` of any set; None if neither.

    >>> make_problem("synthetic_3c3d").__name__, make_problem("synthetic_2c2d")
    ('synthetic_3c3d', None)
    """
    if name in _MADE:
        return _MADE[name]
    family, dataset, network, decay = TABLE.get(name, (Classification, None, None, None))
    set_name, _, word = name.rpartition("_")
    if name not in TABLE and set_name in image_sets():
        images = image_sets()[set_name].images
        network = _network_for(word, images) if images else None
        dataset = image_set(set_name) if network else None
    if network is None:
        return None
    make = network
    members = {
        "__doc__": family.__doc__,
        "__module__": __package__,
        "dataset": dataset,
        "default_weight_decay": decay,
        "make_net": lambda self: make(),
    }
    return _MADE.setdefault(name, type(name, (family,), members))

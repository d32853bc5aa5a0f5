"""The data sets of DeepOBS, each a ``DataSet`` made from a batch size."""

from deepobs.pytorch.datasets.cifar10 import cifar10
from deepobs.pytorch.datasets.cifar100 import cifar100
from deepobs.pytorch.datasets.dataset import DataSet
from deepobs.pytorch.datasets.fmnist import fmnist
from deepobs.pytorch.datasets.imagenet import imagenet
from deepobs.pytorch.datasets.mnist import mnist
from deepobs.pytorch.datasets.quadratic import quadratic
from deepobs.pytorch.datasets.svhn import svhn
from deepobs.pytorch.datasets.tolstoi import tolstoi
from deepobs.pytorch.datasets.two_d import two_d

__all__ = [
    "DataSet",
    "cifar10",
    "cifar100",
    "fmnist",
    "imagenet",
    "mnist",
    "quadratic",
    "svhn",
    "tolstoi",
    "two_d",
]

"""The 26 test problems of DeepOBS and one addition, importable by name.

A new problem is one file and one line here. Of any other set of labelled images in the catalogue
there are ``<data set>_logreg`` and ``_mlp``, and ``_2c2d`` or ``_3c3d`` where the images fit.
"""

from typing import Any

from deepobs.pytorch.testproblems._made import make_problem
from deepobs.pytorch.testproblems.cifar10_3c3d import cifar10_3c3d
from deepobs.pytorch.testproblems.cifar10_vgg16 import cifar10_vgg16
from deepobs.pytorch.testproblems.cifar10_vgg19 import cifar10_vgg19
from deepobs.pytorch.testproblems.cifar100_3c3d import cifar100_3c3d
from deepobs.pytorch.testproblems.cifar100_allcnnc import cifar100_allcnnc
from deepobs.pytorch.testproblems.cifar100_vgg16 import cifar100_vgg16
from deepobs.pytorch.testproblems.cifar100_vgg19 import cifar100_vgg19
from deepobs.pytorch.testproblems.cifar100_wrn164 import cifar100_wrn164
from deepobs.pytorch.testproblems.cifar100_wrn404 import cifar100_wrn404
from deepobs.pytorch.testproblems.fmnist_2c2d import fmnist_2c2d
from deepobs.pytorch.testproblems.fmnist_logreg import fmnist_logreg
from deepobs.pytorch.testproblems.fmnist_mlp import fmnist_mlp
from deepobs.pytorch.testproblems.fmnist_vae import fmnist_vae
from deepobs.pytorch.testproblems.imagenet_inception_v3 import imagenet_inception_v3
from deepobs.pytorch.testproblems.imagenet_vgg16 import imagenet_vgg16
from deepobs.pytorch.testproblems.imagenet_vgg19 import imagenet_vgg19
from deepobs.pytorch.testproblems.mnist_2c2d import mnist_2c2d
from deepobs.pytorch.testproblems.mnist_logreg import mnist_logreg
from deepobs.pytorch.testproblems.mnist_mlp import mnist_mlp
from deepobs.pytorch.testproblems.mnist_vae import mnist_vae
from deepobs.pytorch.testproblems.quadratic_deep import quadratic_deep
from deepobs.pytorch.testproblems.svhn_3c3d import svhn_3c3d
from deepobs.pytorch.testproblems.svhn_wrn164 import svhn_wrn164
from deepobs.pytorch.testproblems.testproblem import TestProblem
from deepobs.pytorch.testproblems.tolstoi_char_rnn import tolstoi_char_rnn
from deepobs.pytorch.testproblems.two_d_beale import two_d_beale
from deepobs.pytorch.testproblems.two_d_branin import two_d_branin
from deepobs.pytorch.testproblems.two_d_rosenbrock import two_d_rosenbrock
from trainrig.registry import Registry


class Problems(Registry):
    """The registered problems, and those that are made of a data set's name when asked for."""

    def __getitem__(self, name: str) -> Any:
        made = None if name in self._entries else make_problem(name)
        return made or super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(make_problem(name)))


TESTPROBLEMS = Problems("test problem")
for _problem in (
    cifar100_3c3d,
    cifar100_allcnnc,
    cifar100_vgg16,
    cifar100_vgg19,
    cifar100_wrn164,
    cifar100_wrn404,
    cifar10_3c3d,
    cifar10_vgg16,
    cifar10_vgg19,
    fmnist_2c2d,
    fmnist_logreg,
    fmnist_mlp,
    fmnist_vae,
    imagenet_inception_v3,
    imagenet_vgg16,
    imagenet_vgg19,
    mnist_2c2d,
    mnist_logreg,
    mnist_mlp,
    mnist_vae,
    quadratic_deep,
    svhn_3c3d,
    svhn_wrn164,
    tolstoi_char_rnn,
    two_d_beale,
    two_d_branin,
    two_d_rosenbrock,
):
    TESTPROBLEMS.register(_problem.__name__)(_problem)

#: Beyond the 26 of the published suite.
ADDITIONS = ("cifar100_wrn164",)

__all__ = [
    "ADDITIONS",
    "TESTPROBLEMS",
    "TestProblem",
    "cifar10_3c3d",
    "cifar10_vgg16",
    "cifar10_vgg19",
    "cifar100_3c3d",
    "cifar100_allcnnc",
    "cifar100_vgg16",
    "cifar100_vgg19",
    "cifar100_wrn164",
    "cifar100_wrn404",
    "fmnist_2c2d",
    "fmnist_logreg",
    "fmnist_mlp",
    "fmnist_vae",
    "imagenet_inception_v3",
    "imagenet_vgg16",
    "imagenet_vgg19",
    "mnist_2c2d",
    "mnist_logreg",
    "mnist_mlp",
    "mnist_vae",
    "quadratic_deep",
    "svhn_3c3d",
    "svhn_wrn164",
    "tolstoi_char_rnn",
    "two_d_beale",
    "two_d_branin",
    "two_d_rosenbrock",
]


def __getattr__(name: str) -> Any:
    if name not in TESTPROBLEMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return TESTPROBLEMS[name]

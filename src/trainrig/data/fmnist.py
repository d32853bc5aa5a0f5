"""Fashion-MNIST: the same IDX files as MNIST with other pictures.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset", arXiv:1708.07747.
"""

from __future__ import annotations

from trainrig.data.mnist import RawImages, read_mnist

read_fmnist = read_mnist

__all__ = ["RawImages", "read_fmnist"]

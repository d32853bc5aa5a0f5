"""Labelled image sets by name, all as uint8 tensors of 32 x 32 pixels with their provenance.

``load_image_set`` is the one entry; a new set is one function and one ``register`` line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig.data import mnist
from trainrig.data.catalogue import find, get_data_set
from trainrig.data.cifar10 import read_cifar10
from trainrig.data.cifar100 import read_cifar100
from trainrig.data.fetch import get
from trainrig.data.locations import data_root
from trainrig.data.published_files import check_files
from trainrig.data.shapes import N_CLASSES, draw_shapes
from trainrig.data.splits import content_hash
from trainrig.registry import Registry

SIZE_PX = 32
IMAGE_SETS = Registry("dataset")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSet:
    """Training and test images with all that their use needs.

    Attributes:
        name: the registered name.
        source: which copy this is, e.g. ``cifar10 (JPEG copy)``.
        train_images: uint8 (N, C, 32, 32).
        train_labels: int64 (N,).
        test_images: uint8 (M, C, 32, 32).
        test_labels: int64 (M,).
        n_classes: labels are 0..n_classes-1.
        mean: per channel, of values in 0..1.
        std: per channel.
        flip: whether a mirrored image keeps its class.
        synthetic: drawn, not photographed.
    """

    name: str
    source: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    synthetic: bool = False

    def describe(self) -> dict[str, str | int | bool]:
        """Return name, source, sizes and the content hash of the training part."""
        return {
            "dataset": self.name,
            "source": self.source,
            "synthetic": self.synthetic,
            "n_train": len(self.train_labels),
            "n_test": len(self.test_labels),
            "content_sha256": content_hash(self.train_images, self.train_labels),
        }


def load_image_set(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    check: bool = True,
) -> ImageSet:
    """Read a set.

    Args:
        name: ``cifar10``, ``cifar100``, ``fashion_mnist``, ``mnist`` or ``synthetic``.
        data_dir: folder of data sets, see ``data_root``; the synthetic set needs none.
        download: fetch what is absent.
        check: compare files with published sizes and digests; False accepts any readable copy.

    Raises:
        KeyError: an unknown name.
        FileNotFoundError: no such files.
        ValueError: files truncated or tampered with.
    """
    return IMAGE_SETS[name](data_root(data_dir), download, check)


@IMAGE_SETS.register("cifar10")
def _cifar10(root: Path, download: bool, check: bool) -> ImageSet:
    folder, copy = _locate("cifar10", root, download, check)
    train, test = read_cifar10(folder, "train"), read_cifar10(folder, "test")
    return ImageSet(
        name="cifar10",
        source=f"cifar10 ({copy} copy)",
        train_images=torch.from_numpy(train.images),
        train_labels=torch.from_numpy(train.labels),
        test_images=torch.from_numpy(test.images),
        test_labels=torch.from_numpy(test.labels),
        n_classes=10,
        # The specification's values. The set's own std is 0.2470/0.2435/0.2616; these are the
        # means of the single images' standard deviations, in wide use.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )


@IMAGE_SETS.register("cifar100")
def _cifar100(root: Path, download: bool, check: bool) -> ImageSet:
    folder, copy = _locate("cifar100", root, download, check)
    train, test = read_cifar100(folder, "train"), read_cifar100(folder, "test")
    return ImageSet(
        name="cifar100",
        source=f"cifar100 ({copy} copy)",
        train_images=torch.from_numpy(train.images),
        train_labels=torch.from_numpy(train.labels),
        test_images=torch.from_numpy(test.images),
        test_labels=torch.from_numpy(test.labels),
        n_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )


@IMAGE_SETS.register("fashion_mnist")
def _fashion_mnist(root: Path, download: bool, check: bool) -> ImageSet:
    folder, _ = _locate("fashion_mnist", root, download, check)
    return _from_idx("fashion_mnist", folder, (0.2860, 0.3530), flip=True)


@IMAGE_SETS.register("mnist")
def _mnist(root: Path, download: bool, check: bool) -> ImageSet:
    folder, _ = _locate("mnist", root, download, check)
    return _from_idx("mnist", folder, (0.1307, 0.3081), flip=False)


@IMAGE_SETS.register("synthetic")
def _synthetic(root: Path, download: bool, check: bool) -> ImageSet:
    train_images, train_labels = draw_shapes(300, seed=0)
    test_images, test_labels = draw_shapes(100, seed=1)
    return ImageSet(
        name="synthetic",
        source="synthetic (drawn shapes)",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        n_classes=N_CLASSES,
        mean=(0.32, 0.32, 0.32),
        std=(0.25, 0.25, 0.25),
        synthetic=True,
    )


def _locate(name: str, root: Path, download: bool, check: bool) -> tuple[Path, str]:
    """Return the folder of a set, fetched if that was asked for, and which copy it is."""
    if download:
        get(name, root)
    folder = find(name, [root])
    hint = ", or set check_files: false for another copy"
    return folder, check_files(folder, get_data_set(name).copies, hint) if check else "unchecked"


def _from_idx(name: str, folder: Path, statistics: tuple[float, float], *, flip: bool) -> ImageSet:
    parts: dict[str, Any] = {}
    for split in ("train", "test"):
        raw = mnist.read_mnist(folder, split)
        images = torch.from_numpy(raw.images.copy())  # (N, 1, 28, 28)
        margin = (SIZE_PX - images.shape[-1]) // 2
        parts[f"{split}_images"] = F.pad(images, (margin,) * 4)
        parts[f"{split}_labels"] = torch.from_numpy(raw.labels)
    mean, std = statistics
    return ImageSet(
        name=name,
        source=f"{name} (padded to {SIZE_PX} px)",
        n_classes=10,
        mean=(mean,),
        std=(std,),
        flip=flip,
        **parts,
    )

"""Labelled image sets by name, all as uint8 tensors of 32 x 32 pixels with their provenance.

``load_image_set`` is the one entry; a new set is one function and one ``register`` line.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig.data import fmnist, mnist
from trainrig.data.cifar10 import read_cifar10
from trainrig.data.cifar100 import read_cifar100
from trainrig.data.download import Upstream, download_file
from trainrig.data.locations import data_root
from trainrig.data.published_files import (
    CIFAR10_JPEG,
    CIFAR10_ORIGINAL,
    CIFAR100_ORIGINAL,
    check_files,
    file_digest,
    find_folder,
)
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
    if download and not (root / "cifar-10-batches-py").is_dir():
        _fetch_archive("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", root, _CIFAR10)
    folder = find_folder(root, ("cifar-10-batches-py",), "data_batch_1")
    copies = {"original": CIFAR10_ORIGINAL, "JPEG": CIFAR10_JPEG}
    copy = check_files(folder, copies) if check else "unchecked"
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
    if download and not (root / "cifar-100-python").is_dir():
        _fetch_archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", root, _CIFAR100)
    folder = find_folder(root, ("cifar-100-python",), "train")
    copy = check_files(folder, {"original": CIFAR100_ORIGINAL}) if check else "unchecked"
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
    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    folder = _idx_folder(root, "FashionMNIST", url, fmnist.SHA256, _FMNIST_BYTES, download)
    statistics = (0.2860, 0.3530)
    return _from_idx("fashion_mnist", folder, fmnist.SHA256, statistics, check=check, flip=True)


@IMAGE_SETS.register("mnist")
def _mnist(root: Path, download: bool, check: bool) -> ImageSet:
    url = "https://storage.googleapis.com/cvdf-datasets/mnist"
    folder = _idx_folder(root, "MNIST", url, mnist.SHA256, _MNIST_BYTES, download)
    statistics = (0.1307, 0.3081)
    return _from_idx("mnist", folder, mnist.SHA256, statistics, check=check, flip=False)


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


_CIFAR10 = Upstream(
    "cifar-10-python.tar.gz",
    170_498_071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
_CIFAR100 = Upstream(
    "cifar-100-python.tar.gz",
    169_001_437,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
_MNIST_BYTES = (9_912_422, 28_881, 1_648_877, 4_542)
_FMNIST_BYTES = (26_421_880, 29_515, 4_422_102, 5_148)


def _fetch_archive(url: str, root: Path, upstream: Upstream) -> None:
    """Fetch, prove and unpack an archive below ``root``."""
    archive = root / upstream.name
    if not archive.is_file():
        download_file(url, archive, upstream)
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")


def _idx_folder(
    root: Path,
    name: str,
    url: str,
    digests: dict[str, str],
    sizes: tuple[int, ...],
    download: bool,
) -> Path:
    if download:
        folder = root / name / "raw"
        for (file, digest), n_bytes in zip(digests.items(), sizes, strict=True):
            if not (folder / file).is_file() and not (folder / file[:-3]).is_file():
                download_file(f"{url}/{file}", folder / file, Upstream(file, n_bytes, digest))
    return find_folder(root, (f"{name}/raw", name), next(iter(digests)))


def _from_idx(
    name: str,
    folder: Path,
    digests: dict[str, str],
    statistics: tuple[float, float],
    *,
    check: bool,
    flip: bool,
) -> ImageSet:
    for file, expected in digests.items() if check else ():
        path = folder / file
        if path.is_file() and (digest := file_digest(path)) != expected:
            raise ValueError(
                f"{path}: {path.stat().st_size:,} bytes with SHA-256 {digest}; expected SHA-256 "
                f"{expected}; fetch it again, or set check_files: false for another copy"
            )
    parts = {}
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

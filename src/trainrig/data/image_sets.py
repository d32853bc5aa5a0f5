"""Sets of labelled images by name: as uint8 tensors of 32 x 32 pixels, or as a bank by class.

What there is and how it is read: ``trainrig.data.catalogue``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig.data import catalogue
from trainrig.data.catalogue import DataSet, Images, find, load_function
from trainrig.data.fetch import get
from trainrig.data.image_bank import GREY_WEIGHTS, ImageBank, hash_pixels
from trainrig.data.locations import data_root
from trainrig.data.mnist import RawImages
from trainrig.data.published_files import check_files
from trainrig.data.splits import content_hash
from trainrig.errors import nearest

SIZE_PX = 32


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


def small_sets() -> dict[str, DataSet]:
    """Return the sets of labelled images that fit into 32 x 32 pixels, by name."""
    found = catalogue.image_sets().items()
    return {name: one for name, one in found if one.images and max(one.images.shape[1:]) <= SIZE_PX}


def load_image_set(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    check: bool = True,
) -> ImageSet:
    """Read a set; smaller images are padded with zeros.

    Args:
        name: one of ``small_sets``.
        data_dir: folder of data sets, see ``data_root``; a drawn set needs none.
        download: fetch what is absent.
        check: compare files with published sizes and digests; False accepts any readable copy.

    Raises:
        KeyError: an unknown name.
        FileNotFoundError: no such files.
        ValueError: files truncated or tampered with.
    """
    known = small_sets()
    if name not in known:
        accepted = ", ".join(known)
        raise KeyError(f"unknown dataset {name!r}{nearest(name, known)} (known: {accepted})")
    facts = known[name].images
    assert facts is not None
    folder, copy = _locate(known[name], data_root(data_dir), download, check)
    margin = [(SIZE_PX - side) // 2 for side in facts.shape[1:]]
    parts: dict[str, Tensor] = {}
    for split in ("train", "test"):
        raw = read_split(facts, folder, split)
        images = torch.from_numpy(raw.images if raw.images.flags.writeable else raw.images.copy())
        (top, left), (height, width) = margin, images.shape[-2:]
        around = (left, SIZE_PX - width - left, top, SIZE_PX - height - top)
        parts[f"{split}_images"] = F.pad(images, around) if any(around) else images
        parts[f"{split}_labels"] = torch.from_numpy(raw.labels)
    return ImageSet(
        name=name,
        source=f"{name} (padded to {SIZE_PX} px)" if any(margin) else f"{name} ({copy})",
        n_classes=facts.n_classes,
        mean=facts.mean,
        std=facts.std,
        flip=facts.flip,
        synthetic=known[name].drawn,
        **parts,
    )


def load_bank(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = False
) -> ImageBank:
    """Return the training images of a set by class, grey, as many of each as the rarest has.

    Sets that are light on dark on the whole are inverted: a bank has dark ink on light ground.

    Raises:
        FileNotFoundError: no such files.
        ValueError: damaged files.
    """
    one = catalogue.image_sets()[name]
    assert one.images is not None
    folder, copy = _locate(one, data_root(data_dir), download, check=False)
    raw = read_split(one.images, folder, "train")
    labels = torch.from_numpy(raw.labels)
    fewest = int(labels.bincount(minlength=one.images.n_classes).min())
    if not fewest:
        raise ValueError(f"{name}: a class has no training image; sequences need some of each")
    rows = torch.stack([(labels == k).nonzero()[:fewest, 0] for k in range(one.images.n_classes)])
    pixels = torch.from_numpy(raw.images.copy())[rows]  # (K, N, C, H, W)
    if pixels.shape[2] == 3:
        weights = torch.tensor(GREY_WEIGHTS).view(3, 1, 1)
        pixels = torch.stack([(k.float() * weights).sum(1).byte() for k in pixels])[:, :, None]
    grey = pixels[:, :, 0]
    images = 255 - grey if one.images.mean[0] < 0.5 and one.images.shape[0] == 1 else grey
    return ImageBank(
        images=images.contiguous(),
        class_ids=torch.arange(one.images.n_classes),
        source=name,
        synthetic=one.drawn,
        sha256=hash_pixels(images.contiguous()),
        order=f"as in the files ({copy})",
    )


def read_split(facts: Images, folder: Path | None, split: str) -> RawImages:
    """Read ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: damaged files, or other images than the catalogue says.
    """
    raw: RawImages = load_function(facts.reader)(folder, split)
    if raw.images.shape[1:] != facts.shape or not 0 <= raw.labels.max() < facts.n_classes:
        raise ValueError(
            f"{folder or facts.reader}: {split} images {raw.images.shape} with labels up to "
            f"{raw.labels.max()}; (N, {', '.join(map(str, facts.shape))}) and 0 to "
            f"{facts.n_classes - 1} are expected"
        )
    return raw


def _locate(one: DataSet, root: Path, download: bool, check: bool) -> tuple[Path | None, str]:
    """Return the folder of a set, fetched if that was asked for, and which copy it is."""
    if one.drawn:
        return None, one.what
    if download:
        get(one.name, root)
    folder = find(one.name, [root])
    hint = ", or set check_files: false for another copy"
    copy = check_files(folder, one.copies, hint) if check and one.copies else "unchecked"
    return folder, f"{copy} copy"

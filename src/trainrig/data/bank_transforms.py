"""What is done to a bank of images before a run: exemplars chosen, classes kept, views made.

Legend as in ``image_bank``. Transforms are pure: they return a new bank and record their name in
``transforms``.

Source: google-deepmind/emergent_in_context_learning, datasets/data_generators.py
(``OmniglotDatasetForSampling``).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainrig.data.image_bank import ImageBank

VIEWS_PER_CLASS = 8  # flip in (no, yes) times rotation in (0, 90, 180, 270) degrees


def select_exemplars(bank: ImageBank, exemplars: str) -> ImageBank:
    """Decide what the drawings of a class are for.

    Args:
        bank: a bank with ``exemplars == "all"``.
        exemplars: ``"all"`` keeps them as interchangeable drawings of one class; ``"single"``
            keeps the first in the bank's order (the reference's first is that of the TFDS record
            order: load with ``order="tfds"`` to get the same one); ``"separated"`` makes each
            drawing a class of its own, new id = N * class id + position.

    Raises:
        ValueError: an unknown word, or a bank whose exemplars were selected before.
    """
    if exemplars not in ("single", "all", "separated"):
        raise ValueError(
            f"exemplars: {exemplars!r} is unknown; accepted are 'single', 'all', 'separated'"
        )
    if exemplars == "all":
        return bank
    if bank.exemplars != "all":
        raise ValueError(
            f"exemplars: the bank was reduced to {bank.exemplars!r} before; "
            "select from a bank that still has all exemplars"
        )
    steps = (*bank.transforms, f"exemplars={exemplars}")
    if exemplars == "single":
        first = bank.images[:, :1].contiguous()
        return replace(bank, images=first, exemplars="single", transforms=steps)
    n = bank.n_exemplars
    position = torch.arange(n)
    order = bank.dictionary_order
    if order is not None:
        order = (order[:, None] * n + position).flatten()
    names = tuple(f"{name}_{i}" for name in bank.class_names for i in range(n))
    return replace(
        bank,
        images=bank.images.flatten(0, 1)[:, None],  # (K*N, 1, H, W)
        class_ids=(bank.class_ids[:, None] * n + position).flatten(),
        exemplars="separated",
        class_names=names,
        dictionary_order=order,
        transforms=steps,
    )


def keep_classes(bank: ImageBank, n: int) -> ImageBank:
    """Keep the classes with ids 0 .. n-1 (the reference's ``n_to_keep``), in that order.

    Raises:
        ValueError: ``n`` < 1, or a bank that lacks one of those ids.
    """
    if n < 1 or n > bank.n_classes or int(bank.class_ids[n - 1]) != n - 1:
        have = f"{bank.n_classes} classes, ids {int(bank.class_ids[0])}..{int(bank.class_ids[-1])}"
        raise ValueError(
            f"keep classes: ids 0..{n - 1} asked for, the bank has {have}; "
            "give a number of classes that it holds from id 0 on"
        )
    return replace(
        bank,
        images=bank.images[:n],
        class_ids=bank.class_ids[:n],
        class_names=bank.class_names[:n],
        dictionary_order=None,
        transforms=(*bank.transforms, f"keep={n}"),
    )


def view_table(side_px: int) -> Tensor:
    """Return which pixel of a square image each pixel of its eight views shows: (8, H·W), int64.

    Row 4 · flip + rotation is the view of ``augment`` with that number, so that views can be
    gathered instead of stored.
    """
    pixels = torch.arange(side_px * side_px).view(side_px, side_px)
    views = [
        torch.rot90(pixels.flip(-1) if flip else pixels, turns).flatten()
        for flip in range(2)
        for turns in range(4)
    ]
    return torch.stack(views)


def prepare_views(bank: ImageBank) -> ImageBank:
    """Order the classes for ``view_table``: class 8 * k + v is then view v of row k.

    Rows follow the bank's ``dictionary_order`` and are numbered again from 0.

    Raises:
        ValueError: exemplars single or separated. The reference then takes the 105 rows of the
            one image for 105 images; use all exemplars.
    """
    if bank.exemplars != "all":
        raise ValueError(
            f"augmentation: exemplars are {bank.exemplars!r}, for which the reference's operation "
            "is broken (pixel rows become images); use exemplars 'all'"
        )
    if bank.size_px[0] != bank.size_px[1]:
        raise ValueError(f"augmentation: images are {bank.size_px} px; square ones can be turned")
    order = bank.dictionary_order
    if order is None:
        order = torch.arange(bank.n_classes)
    return replace(
        bank,
        images=bank.images[order],
        class_ids=torch.arange(bank.n_classes),
        class_names=tuple(bank.class_names[row] for row in order.tolist() if bank.class_names),
        dictionary_order=None,
        transforms=(*bank.transforms, "augment"),
    )


def augment(bank: ImageBank) -> ImageBank:
    """Make eight classes of each: flipped left-right or not, then turned by 0, 90, 180, 270°.

    New id = 8 * position + 4 * flip + rotation, the flip done first and the rotation
    counter-clockwise; position counts classes in the bank's ``dictionary_order``. All exemplars
    of a class turn together, so 1,623 classes become 12,984 of 20: 2.9 GB at 105 px, which runs
    do without (``prepare_views``).

    Raises:
        ValueError: as ``prepare_views``.
    """
    ordered = prepare_views(bank)
    side = ordered.size_px[0]
    table = view_table(side).to(ordered.images.device)
    views = ordered.images.flatten(2)[:, :, table].movedim(2, 1)  # (K, 8, N, H*W)
    names = tuple(
        f"{name}_flip{view // 4}_rot{view % 4}"
        for name in ordered.class_names
        for view in range(VIEWS_PER_CLASS)
    )
    return replace(
        ordered,
        images=views.flatten(0, 1).unflatten(2, (side, side)),  # (8K, N, H, W)
        class_ids=torch.arange(VIEWS_PER_CLASS * bank.n_classes),
        class_names=names,
    )

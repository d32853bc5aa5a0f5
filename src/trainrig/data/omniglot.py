"""Omniglot as an image bank: 1,623 handwritten characters x 20 drawings, 105 x 105 px.

Three sources give identical pixels and ids: the PNG files read here, torchvision's reader, and an
``array_record`` directory prepared by TensorFlow Datasets. Ids are those of TensorFlow Datasets:
the number in the file name - 1, 0..963 background (``train``) and 964..1622 evaluation (``test``).

A local copy is judged by what it contains, not by the hash of its zips (honest copies differ in
bytes): the number of characters and drawings, their size, and a hash of the decoded pixels.

Citation: Lake, Salakhutdinov, Tenenbaum, Science 350 (2015) 1332-1338;
https://github.com/brendenlake/omniglot (MIT).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainrig.data.bank_cache import fetch_bank
from trainrig.data.fetch import get
from trainrig.data.image_bank import ImageBank, hash_pixels
from trainrig.data.locations import data_root
from trainrig.data.omniglot_files import (
    PARTS,
    SIDE_PX,
    Drawings,
    expected_part,
    fingerprint,
    locate_part,
    read_part,
    read_part_with_torchvision,
)
from trainrig.data.omniglot_tfds import (
    fingerprint_prepared,
    locate_prepared,
    read_prepared,
    record_key,
    record_order,
)
from trainrig.errors import nearest

N_EXEMPLARS = 20
CLASS_RANGES: dict[str, range] = {"train": range(964), "test": range(964, 1623)}
PIXELS_SHA256 = {
    "all": "8987747ec78412002c9099de50a4baff7f767d23bdfc3fb33e7f7c8ce6065f31",
    "train": "97db6dcdf39955c3a949e197621f8f318092986b37e116c9b4996150e8d2d8a3",
    "test": "a76180acf0908643e1a9494a1a841d2af4bbbbdc6d7e01e0db92eed7d1c6f902",
}
ORDERS: dict[str, str] = {
    "drawing": "drawing number, ascending",
    "tfds": "TFDS record order (MD5 of split name and key)",
}
UNKNOWN_NUMBERS = "record order (drawing numbers unknown)"


def load_source(data_dir: str | os.PathLike[str] | None, source: str, **options: Any) -> ImageBank:
    """Return ``load_omniglot`` of an image source's name; ``omniglot`` reads the files."""
    return load_omniglot(data_dir, source="files" if source == "omniglot" else source, **options)


def load_omniglot(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    source: str = "files",
    split: str = "all",
    order: str = "drawing",
    complete: bool = True,
    download: bool = False,
    cache: bool = True,
) -> ImageBank:
    """Return Omniglot's images, uint8 (K, N, 105, 105).

    Args:
        data_dir: folder that holds ``omniglot-py/images_{background,evaluation}.zip`` (or the
            unpacked folders), or for ``tfds`` an ``omniglot/<version>`` directory; the default is
            ``data_root()``.
        source: ``files``, ``torchvision`` or ``tfds``.
        split: ``all`` (1,623 classes), ``train`` (964) or ``test`` (659, ids from 964).
        order: of the exemplars of a class. ``drawing``: by drawing number. ``tfds``: the order of
            TensorFlow Datasets' records, in which the reference reads them; its "first exemplar"
            (``exemplars="single"``) and its numbering of augmented classes are those of this
            order. Both are the same for every source.
        complete: demand all 20 drawings of every character and the published pixels. False takes
            what is there, as long as every class has equally many drawings.
        download: fetch missing zips into ``<data_dir>/omniglot-py`` (16 MB).
        cache: keep the decoded tensor under ``cache_dir()`` (358 MB for all).

    Raises:
        FileNotFoundError: nothing at the expected place.
        ValueError: an unknown word, or data that are damaged, incomplete or altered; the text
            names the file.
    """
    _check_word("source", source, ("files", "torchvision", "tfds"))
    _check_word("split", split, ("all", "train", "test"))
    _check_word("order", order, tuple(ORDERS))
    root = data_root(data_dir)
    splits = ("train", "test") if split == "all" else (split,)
    if download and source != "tfds":
        get("omniglot", root, only=[f"{PARTS[name]}.zip" for name in splits])
    if source == "tfds":
        prepared = locate_prepared(root)
        key_input: Mapping[str, str] = {"prepared": fingerprint_prepared(prepared)}
    else:
        parts = {name: _find_part(root, name) for name in splits}
        key_input = {name: fingerprint(part) for name, part in parts.items()}

    def build() -> ImageBank:
        if source == "tfds":
            read = read_prepared(prepared, splits)
        elif source == "torchvision":
            read = [read_part_with_torchvision(parts[s], s, _describe(s)) for s in splits]
        else:
            read = [read_part(parts[s], _describe(s)) for s in splits]
        return assemble(read, splits, source=source, complete=complete)

    key = {"source": source, "split": split, "complete": complete, "input": key_input}
    bank = fetch_bank("omniglot", key, build, cache=cache)
    if order == "drawing" or bank.order == UNKNOWN_NUMBERS:
        return bank
    return in_record_order(bank)


def assemble(
    read: Sequence[Drawings], splits: Sequence[str], *, source: str, complete: bool
) -> ImageBank:
    """Sort drawings by class, then by drawing number, and check that they are Omniglot.

    Args:
        read: one entry per split.
        splits: their names, ``train`` before ``test``.
        source: recorded in the bank.
        complete: see ``load_omniglot``.

    Raises:
        ValueError: drawings that are missing, doubled or of another class than the split's, classes
            of unequal size, or (``complete``) pixels other than the published ones.
    """
    for drawings, split in zip(read, splits, strict=True):
        _check_counts(drawings, split, complete)
    labels = np.concatenate([drawings.labels for drawings in read])
    numbers = np.concatenate([drawings.numbers for drawings in read])
    class_ids, counts = np.unique(labels, return_counts=True)
    if counts.min() != counts.max():
        few, many = int(class_ids[counts.argmin()]), int(class_ids[counts.argmax()])
        raise ValueError(
            f"{read[0].where}: character {few + 1:04d} has {counts.min()} drawings and "
            f"{many + 1:04d} has {counts.max()}; every class needs equally many"
        )
    place = np.empty(len(labels), np.int64)
    place[np.lexsort((numbers, labels))] = np.arange(len(labels))
    images = np.empty((len(labels), SIDE_PX, SIDE_PX), np.uint8)
    start = 0
    for drawings in read:
        images[place[start : start + len(drawings.labels)]] = drawings.images
        start += len(drawings.labels)
    bank_images = torch.from_numpy(full_range(images)).unflatten(0, (len(class_ids), -1))
    names = {label: name for drawings in read for label, name in drawings.class_names.items()}
    known = all(drawings.numbers_known for drawings in read)
    bank = ImageBank(
        images=bank_images,
        class_ids=torch.from_numpy(class_ids),
        source=source,
        synthetic=False,
        sha256=hash_pixels(bank_images),
        order=ORDERS["drawing"] if known else UNKNOWN_NUMBERS,
        class_names=tuple(names[label] for label in class_ids.tolist()),
    )
    if complete and known:
        _check_pixels(bank, "all" if len(splits) == 2 else splits[0], read[0].where)
    return bank


def full_range(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 0/255 images; 1-bit pictures that some decoder left as 0/1 are scaled up in place."""
    if images.max(initial=0) <= 1:
        images *= np.uint8(255)
    return images


def in_record_order(bank: ImageBank) -> ImageBank:
    """Reorder the exemplars of a bank in drawing order as TensorFlow Datasets stores them.

    Also sets ``dictionary_order``: classes by first appearance, ``train`` before ``test``, which is
    how the reference numbers augmented classes. A bank whose drawing numbers are unknown is in
    record order already and is refused.

    Raises:
        ValueError: the bank is not in drawing order with all its exemplars.
    """
    if bank.order != ORDERS["drawing"] or bank.exemplars != "all":
        raise ValueError(
            f"order tfds: the bank's exemplars are in the order {bank.order!r}; "
            f"accepted is {ORDERS['drawing']!r}"
        )
    ids = bank.class_ids.tolist()
    records: list[tuple[int, int]] = []  # (row, exemplar index) in the order of the records
    for split, members in CLASS_RANGES.items():
        pairs = [
            (row, index)
            for row, label in enumerate(ids)
            if label in members
            for index in range(bank.n_exemplars)
        ]
        keys = (record_key(bank.class_names[row], ids[row], index + 1) for row, index in pairs)
        records += [pairs[i] for i in record_order(keys, split)]
    exemplars: dict[int, list[int]] = {}
    for row, index in records:
        exemplars.setdefault(row, []).append(index)
    picked = torch.tensor([exemplars[row] for row in range(bank.n_classes)])  # (K, N)
    return replace(
        bank,
        images=bank.images[torch.arange(bank.n_classes)[:, None], picked],
        order=ORDERS["tfds"],
        dictionary_order=torch.tensor(list(exemplars)),
    )


def is_present(data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether both parts of Omniglot, zipped or unpacked, lie under the data root."""
    root = data_root(data_dir)
    return all(locate_part(root, split) is not None for split in PARTS)


def _find_part(root: Path, split: str) -> Path:
    """Return the zip or folder of a split, or say where it belongs and how to do without."""
    part = locate_part(root, split)
    if part is None:
        raise FileNotFoundError(
            f"{expected_part(root, split)}: Omniglot is not there; fetch it with --download, name "
            "its folder with --data-dir, or use the embedded data: --source synthetic "
            "(--preset quick)"
        )
    return part


def _describe(split: str) -> str:
    """Say what a part of Omniglot holds."""
    n_classes = len(CLASS_RANGES[split])
    return f"{PARTS[split]} with {n_classes} characters x {N_EXEMPLARS} drawings of 105 x 105 px"


def _check_counts(drawings: Drawings, split: str, complete: bool) -> None:
    """Raise unless the drawings can be those of ``split``, each of them once."""
    expected = CLASS_RANGES[split]
    where, labels = drawings.where, drawings.labels
    if len(labels) == 0:
        raise ValueError(f"{where}: holds no Omniglot drawings; expected {_describe(split)}")
    foreign = [label for label in drawings.class_names if label not in expected]
    if foreign:
        raise ValueError(
            f"{where}: holds character {foreign[0] + 1:04d}, which belongs to the other part; "
            f"expected {_describe(split)}, numbered {expected[0] + 1:04d} to {expected[-1] + 1:04d}"
        )
    pairs, counts = np.unique(np.stack([labels, drawings.numbers]), axis=1, return_counts=True)
    if counts.max() > 1:
        label, number = pairs[:, counts.argmax()].tolist()
        raise ValueError(
            f"{where}: drawing {label + 1:04d}_{number:02d} occurs {counts.max()} times; "
            "expected each once"
        )
    per_class = np.bincount(labels, minlength=expected.stop)[expected.start :]
    if complete and not (per_class == N_EXEMPLARS).all():
        first = int(np.flatnonzero(per_class != N_EXEMPLARS)[0])
        raise ValueError(
            f"{where}: holds {len(drawings.class_names)} characters, {len(labels):,} drawings, and "
            f"{per_class[first]} of character {expected[first] + 1:04d}; "
            f"expected {_describe(split)}"
        )


def _check_pixels(bank: ImageBank, split: str, where: str) -> None:
    """Raise unless the decoded pixels are the published ones."""
    if bank.sha256 != PIXELS_SHA256[split]:
        raise ValueError(
            f"{where}: the decoded pixels of split {split!r} hash to {bank.sha256}; expected "
            f"{PIXELS_SHA256[split]}: this copy was altered"
        )


def _check_word(what: str, word: str, accepted: tuple[str, ...]) -> None:
    """Raise unless ``word`` is one of the accepted ones."""
    if word not in accepted:
        raise ValueError(
            f"omniglot {what}: {word!r} is unknown{nearest(word, accepted)}; "
            f"accepted are {', '.join(accepted)}"
        )

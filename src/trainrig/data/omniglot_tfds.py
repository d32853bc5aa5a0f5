"""Omniglot from TensorFlow Datasets: its prepared files, and the order of its records.

Reading needs ``tensorflow-datasets`` but no TensorFlow, provided that the data were prepared as
``array_record``. Without TensorFlow the package decodes these 1-bit pictures to 0/1 where
TensorFlow gives 0/255, so the stored PNG bytes are taken undecoded and decoded here.

The records carry no drawing number, but their order tells it: TensorFlow Datasets sorts records
by MD5(split name + key) with key ``<Alphabet>_<character - 1>_<ID>_<drawing>.png`` (hashing.py and
image_classification/omniglot.py, 4.9.10). The order is predicted from the keys and accepted only
if all labels come out in the predicted sequence.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainrig.data.omniglot_files import SIDE_PX, Drawings, decode_png
from trainrig.files import read_json, reading

_RECORDS_AT_ONCE = 1024

log = logging.getLogger(__name__)


def locate_prepared(root: Path) -> Path:
    """Return the directory with ``dataset_info.json``: ``root`` or ``root/omniglot/<version>``.

    Of several versions the last in name order is taken.

    Raises:
        FileNotFoundError: none there.
    """
    candidates = [
        root,
        *sorted(root.glob("omniglot/*"), reverse=True),
        *sorted(root.glob("tensorflow_datasets/omniglot/*"), reverse=True),
    ]
    for folder in candidates:
        if (folder / "dataset_info.json").is_file():
            return folder
    raise FileNotFoundError(
        f"{root / 'omniglot' / '<version>' / 'dataset_info.json'}: no prepared Omniglot there; "
        "prepare it once with tensorflow-datasets and TensorFlow as array_record, read the "
        "original zips with --source files (--download fetches them), or use --source synthetic"
    )


def fingerprint_prepared(prepared: Path) -> str:
    """Return a SHA-256 over the names and bytes of the prepared files (about 15 MB)."""
    digest = hashlib.sha256()
    for path in sorted(path for path in prepared.iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_prepared(prepared: Path, splits: Iterable[str]) -> list[Drawings]:
    """Decode the given splits of a prepared directory.

    Raises:
        ValueError: the package is missing, the files are of another format, a split is absent, or
            a record cannot be read.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"source tfds: tensorflow-datasets cannot be imported ({error}); "
            "install the extra 'tfds', or use source 'files'"
        ) from error
    _check_format(prepared)
    with reading(prepared, "prepared data set; prepare the data again"):
        return _read_splits(tfds, prepared, splits)


def _read_splits(tfds: Any, prepared: Path, splits: Iterable[str]) -> list[Drawings]:
    builder = tfds.builder_from_directory(prepared)
    read = []
    for split in splits:
        if split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise ValueError(f"{prepared}: has no split {split!r}; it holds {known}")
        skip = {"image": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(split, decoders=skip)
        read.append(_read_split(records, builder.info.features, split, f"{prepared}: {split}"))
    return read


def record_order(keys: Iterable[str], split: str) -> list[int]:
    """Return the indices of ``keys`` in the order in which TensorFlow Datasets stores them."""
    salt = hashlib.md5(split.encode(), usedforsecurity=False)
    hashed = []
    for index, key in enumerate(keys):
        digest = salt.copy()
        digest.update(key.encode())
        hashed.append((digest.digest(), index))
    return [index for _, index in sorted(hashed)]


def record_key(class_name: str, label: int, number: int) -> str:
    """Return the key of drawing ``number`` of class ``label``.

    >>> record_key("Angelic_0", 964, 3)
    'Angelic_0_0965_03.png'
    """
    return f"{class_name}_{label + 1:04d}_{number:02d}.png"


def _check_format(prepared: Path) -> None:
    """Refuse what cannot be read without TensorFlow."""
    info = read_json(prepared / "dataset_info.json")
    if not isinstance(info, dict):
        raise ValueError(f"{prepared / 'dataset_info.json'}: no mapping; prepare the data again")
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise ValueError(
            f"{prepared}: prepared as {file_format!r}, which only TensorFlow reads; "
            "prepare it with file_format='array_record'"
        )


def _read_split(records: Any, features: Mapping[str, Any], split: str, where: str) -> Drawings:
    """Decode one split and work out which drawing each record is."""
    images = np.empty((len(records), SIDE_PX, SIDE_PX), np.uint8)
    labels = np.empty(len(records), np.int64)
    class_names: dict[int, str] = {}
    for start in range(0, len(records), _RECORDS_AT_ONCE):
        rows = range(start, min(start + _RECORDS_AT_ONCE, len(records)))
        for row, record in zip(rows, records.__getitems__(list(rows)), strict=True):
            labels[row] = record["label"]
            try:
                images[row] = decode_png(record["image"])
            except Exception as error:  # Pillow raises almost anything over damaged bytes
                raise ValueError(
                    f"{where}, record {row}: not a 105 x 105 PNG ({error}); prepare the data again"
                ) from error
            if labels[row] not in class_names:
                class_names[int(labels[row])] = _class_name(record, features)
    numbers, known = _drawing_numbers(labels, class_names, split, where)
    return Drawings(
        where=where,
        images=images,
        labels=labels,
        numbers=numbers,
        class_names=class_names,
        numbers_known=known,
    )


def _class_name(record: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    """Return ``<Alphabet>_<character - 1>``, from the label's name or the alphabet's."""
    label = int(record["label"])
    name = features["label"].int2str(label)
    if name == str(label) and "alphabet" in record:  # prepared without label names
        alphabet = features["alphabet"].int2str(int(record["alphabet"]))
        return f"{alphabet}_{int(record['alphabet_char_id'])}"
    return name


def _drawing_numbers(
    labels: NDArray[np.int64], class_names: Mapping[int, str], split: str, where: str
) -> tuple[NDArray[np.int64], bool]:
    """Return each record's drawing number and whether it is known.

    Unknown numbers (foreign keys, shuffling turned off) are replaced by the order of appearance
    within the class, and a warning says so.
    """
    counts = np.bincount(labels)
    pairs = [
        (label, number)
        for label in np.flatnonzero(counts).tolist()
        for number in range(1, int(counts[label]) + 1)
    ]
    keys = (record_key(class_names[label], label, number) for label, number in pairs)
    predicted = np.array([pairs[index] for index in record_order(keys, split)]).reshape(-1, 2)
    if np.array_equal(predicted[:, 0], labels):
        return predicted[:, 1], True
    log.warning(
        "%s: the records are not in the order of TensorFlow Datasets' keys, so drawing numbers "
        "are unknown; exemplars keep their record order",
        where,
    )
    seen = np.zeros(len(counts), np.int64)
    numbers = np.empty_like(labels)
    for row, label in enumerate(labels):
        seen[label] += 1
        numbers[row] = seen[label]
    return numbers, False

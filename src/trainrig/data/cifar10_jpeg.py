"""CIFAR-10 from an archive of JPEG files, as the binary batches that the loaders read.

The pixels have been through JPEG: good for comparisons, not for published numbers.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from trainrig.data.cifar10 import PIXELS
from trainrig.files import reading, write_atomically

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
PER_CLASS = {"train": 5000, "test": 1000}


def write_batches(archive: Path, folder: Path) -> int:
    """Write ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, classes in turn.

    Args:
        archive: tar file of ``<split>/<class>/<number>.jpg``, numbered from 0 or 1 in each class.
        folder: where the batches are put; others are replaced.

    Returns:
        How many files were written.

    Raises:
        ValueError: the archive is damaged, or does not hold the whole set.
    """
    splits = _read(archive)
    batches = {"test_batch.bin": splits["test"]}
    for number, part in enumerate(np.split(splits["train"], 5), start=1):
        batches[f"data_batch_{number}.bin"] = part
    for name, records in batches.items():
        write_atomically(folder / name, records.tobytes())
    return len(batches)


def _read(archive: Path) -> dict[str, np.ndarray]:
    """Return uint8 (N, 1 + 3072) of each split: label, then red, green and blue planes."""
    from PIL import Image  # torchvision's; nothing else here needs it

    found: dict[str, dict[tuple[int, int], np.ndarray]] = {split: {} for split in PER_CLASS}
    with reading(archive, "archive; fetch it again"), tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue
            path = PurePosixPath(member.name)
            split, label = path.parts[-3], CLASSES.index(path.parts[-2])
            content = tar.extractfile(member)
            assert content is not None  # a plain file
            with Image.open(io.BytesIO(content.read())) as picture:
                pixels = np.asarray(picture.convert("RGB"), np.uint8)  # (32, 32, 3)
            record = np.empty(1 + PIXELS, np.uint8)
            record[0], record[1:] = label, pixels.transpose(2, 0, 1).reshape(-1)
            found[split][int(path.stem), label] = record
    records = {}
    for split, images in found.items():
        expected = PER_CLASS[split] * len(CLASSES)
        if len(images) != expected:
            raise ValueError(f"{archive}: {len(images)} {split} images; {expected} are expected")
        records[split] = np.stack([images[key] for key in sorted(images)])
    return records

"""Small random data sets in the native file formats, for smoke runs and tests without downloads."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepobs.pytorch import config
from trainrig.data.mnist import FILES
from trainrig.data.tolstoi import VOCABULARY
from trainrig.files import scratch_folder


def write_generated_data(folder: Path, examples: int = 64, seed: int = 0) -> None:
    """Write every file-based data set below ``folder``.

    Args:
        folder: becomes a data folder.
        examples: images per training and test set (ImageNet: an eighth of it).
        seed: of the random content.
    """
    r = np.random.RandomState(seed)
    for name in ("mnist", "fmnist"):
        write_idx(folder / name, examples, r)
    write_records(folder / "cifar-10", examples, r, labels=[10], batches=5)
    write_records(folder / "cifar-100", examples, r, labels=[20, 100], batches=0)
    write_records(folder / "svhn", examples, r, labels=[10], batches=2, first=0)
    write_text(folder / "tolstoi", 50 * examples * 2, r)
    write_image_folder(folder / "imagenet", max(examples // 8, 4), r)


@contextlib.contextmanager
def generated_data(examples: int, seed: int = 0) -> Iterator[None]:
    """Let the configured data folder be one of generated data, for a while."""
    before = config._settings.get("data_dir")
    with scratch_folder() as folder:
        write_generated_data(folder, examples, seed)
        config.set_data_dir(folder)
        try:
            yield
        finally:
            config._settings.pop("data_dir")
            if before is not None:
                config.set_data_dir(before)


def write_idx(folder: Path, n: int, r: np.random.RandomState) -> None:
    """Write four gzipped IDX files of ``n`` images of 28x28."""
    folder.mkdir(parents=True, exist_ok=True)
    for images, labels in FILES.values():
        pixels = r.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        header = np.array([2051, n, 28, 28], ">u4").tobytes()
        (folder / f"{images}.gz").write_bytes(gzip.compress(header + pixels.tobytes(), 1))
        header = np.array([2049, n], ">u4").tobytes()
        classes = r.randint(0, 10, n).astype(np.uint8)
        (folder / f"{labels}.gz").write_bytes(gzip.compress(header + classes.tobytes(), 1))


def write_records(
    folder: Path,
    n: int,
    r: np.random.RandomState,
    *,
    labels: list[int],
    batches: int,
    first: int = 1,
) -> None:
    """Write binary batches of ``n`` images of 32x32 in all, and as many for testing."""
    folder.mkdir(parents=True, exist_ok=True)

    def records(count: int) -> bytes:
        classes = [r.randint(0, k, (count, 1)) for k in labels]
        return np.hstack([*classes, r.randint(0, 256, (count, 3072))]).astype(np.uint8).tobytes()

    if not batches:
        (folder / "train.bin").write_bytes(records(n))
        (folder / "test.bin").write_bytes(records(n))
        return
    for i in range(batches):
        (folder / f"data_batch_{i + first}.bin").write_bytes(records(-(-n // batches)))
    (folder / "test_batch.bin").write_bytes(records(n))


def write_text(folder: Path, n: int, r: np.random.RandomState) -> None:
    """Write ``n`` random characters each for training and testing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        characters = r.randint(0, VOCABULARY, n + 1)
        characters[:VOCABULARY] = np.arange(VOCABULARY)[: n + 1]
        np.save(folder / f"{name}.npy", characters.astype(np.int64))


def write_image_folder(folder: Path, n: int, r: np.random.RandomState) -> None:
    """Write ``n`` PNG images in two classes for training and testing each."""
    from PIL import Image

    for split in ("train", "val"):
        for i in range(n):
            synset = folder / split / f"n{i % 2:08d}"
            synset.mkdir(parents=True, exist_ok=True)
            pixels = r.randint(0, 256, (260 + 8 * i, 300, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(synset / f"{i:03d}.png", compress_level=0)

"""Lays the raw data sets out below a data folder; files only, checked by SHA-256 where known."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainrig.data import fmnist, mnist, tolstoi
from trainrig.data.download import Upstream, download_file

#: Where the originals are published.
URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fmnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "svhn": "http://ufldl.stanford.edu/housenumbers/",
}
IDX_BYTES = {
    "mnist": (9_912_422, 28_881, 1_648_877, 4_542),
    "fmnist": (26_421_880, 29_515, 4_422_102, 5_148),
}
#: Archive by set: names it may have, the folder it becomes, and files that prove it is there.
ARCHIVES: Mapping[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "cifar10": (
        ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
        "cifar-10",
        ("test_batch.bin", "test_batch"),
    ),
    "cifar100": (
        ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
        "cifar-100",
        ("test.bin", "test"),
    ),
}
SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")
TOLSTOI_ARCHIVES = ("tolstoi-deepobs.tar.gz",)
TOLSTOI_TEXTS = ("war-and-peace.txt.gz", "war-and-peace.txt")


def prepare(name: str, data_dir: Path, source: Path | None, *, download: bool) -> str:
    """Prepare one set.

    Args:
        name: ``mnist``, ``fmnist``, ``cifar10``, ``cifar100``, ``svhn`` or ``tolstoi``.
        data_dir: the data folder.
        source: searched, with all its subfolders, for the originals.
        download: fetch what is not there.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: not in ``source``, and no download allowed or known.
        ValueError: a file is not what was published.
    """
    if name in IDX_BYTES:
        return _prepare_idx(name, data_dir / name, source, download)
    if name in ARCHIVES:
        return _prepare_archive(name, data_dir, source, download)
    if name == "svhn":
        return _prepare_svhn(data_dir / "svhn", source)
    return _prepare_tolstoi(data_dir / "tolstoi", source)


def _find(source: Path | None, name: str, folder_hint: str = "") -> Path | None:
    """Return a file of this name below ``source``, preferring paths that contain the hint."""
    hint = folder_hint.lower()
    return next((path for path in _all(source, name) if hint in str(path.parent).lower()), None)


def _prepare_idx(name: str, folder: Path, source: Path | None, download: bool) -> str:
    sums = {"mnist": mnist.SHA256, "fmnist": fmnist.SHA256}[name]
    hint = {"mnist": "MNIST/raw", "fmnist": "Fashion"}[name]
    for (file, digest), size in zip(sums.items(), IDX_BYTES[name], strict=True):
        target = folder / file
        if target.is_file() and _sha256(target) == digest:
            continue
        candidates = [source / hint / file] if source is not None else []
        candidates += [path for path in _all(source, file) if _sha256(path) == digest]
        found = next((p for p in candidates if p.is_file() and _sha256(p) == digest), None)
        if found is not None:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, target)
        elif download:
            download_file(URLS[name] + file, target, Upstream(file, size, digest))
        else:
            raise FileNotFoundError(
                f"{file}: not found with its published checksum; try --download"
            )
    return f"four files in {folder}, checksums as published"


def _all(source: Path | None, name: str) -> Iterator[Path]:
    """Yield the files of this name below ``source``, linked folders included."""
    for folder, subfolders, files in os.walk(source or "", followlinks=True):
        subfolders.sort()
        if name in files:
            yield Path(folder) / name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _prepare_archive(name: str, data_dir: Path, source: Path | None, download: bool) -> str:
    archives, folder_name, proofs = ARCHIVES[name]
    folder = data_dir / folder_name
    if any((folder / proof).is_file() for proof in proofs):
        return f"already in {folder}"
    for archive in archives:
        found = _find(source, archive)
        if found is not None:
            count = _unpack(found, folder)
            return f"{count} files from {found.name} in {folder}"
    raise FileNotFoundError(
        f"none of {', '.join(archives)} found; fetch {URLS[name]} and give its folder as --source"
        + ("" if not download else " (no checksum is recorded, so it is not fetched automatically)")
    )


def _prepare_svhn(folder: Path, source: Path | None) -> str:
    for file in SVHN_FILES:
        if (folder / file).is_file():
            continue
        found = _find(source, file)
        if found is None:
            raise FileNotFoundError(f"{file} not found; fetch {URLS['svhn']}{file} as --source")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, folder / file)
    return f"{', '.join(SVHN_FILES)} in {folder}"


def _prepare_tolstoi(folder: Path, source: Path | None) -> str:
    if (folder / "train.npy").is_file() and (folder / "test.npy").is_file():
        return f"already in {folder}"
    for archive in TOLSTOI_ARCHIVES:
        found = _find(source, archive)
        if found is not None:
            return f"{_unpack(found, folder)} files from {found.name} in {folder}"
    for name in TOLSTOI_TEXTS:
        found = _find(source, name)
        if found is not None:
            content = found.read_bytes()
            content = gzip.decompress(content) if found.suffix == ".gz" else content
            vocabulary = tolstoi.prepare_tolstoi(content.decode("utf-8"), folder)
            return f"{vocabulary} different characters from {found.name} in {folder}"
    raise FileNotFoundError(
        f"none of {', '.join((*TOLSTOI_ARCHIVES, *TOLSTOI_TEXTS))} found; give --source"
    )


def _unpack(archive: Path, folder: Path) -> int:
    """Unpack the plain files of an archive flat into ``folder``; nothing else, nowhere else."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if not member.isfile() or name.startswith("."):
                    continue
                with (folder / name).open("wb") as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
                count += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive}: not a whole archive ({error}); fetch it again") from None
    return count

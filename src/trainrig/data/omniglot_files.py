"""Omniglot's drawings from its PNG files: zipped, unpacked, or through torchvision's reader.

Layout: ``images_background/<Alphabet>/characterNN/<ID>_<drawing>.png`` (964 characters) and
``images_evaluation/...`` (659), either as ``.zip`` or unpacked. The pictures are 1-bit PNGs, whose
plain NumPy value is 0/1: every reader here converts to 8 bits first, so background is 255.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from trainrig.data.lookup import folders_named, members
from trainrig.files import scratch_folder

SIDE_PX = 105
PARTS = {"train": "images_background", "test": "images_evaluation"}
_FOLDER = "omniglot-py"
_MAX_PNG_BYTES = 1 << 20  # a drawing has about 300 bytes; more is not a drawing
_MEMBER = re.compile(
    r"(?P<alphabet>[^/]+)/character(?P<character>\d+)/(?P<id>\d{4})_(?P<drawing>\d{2})\.png"
)


@dataclass(frozen=True, slots=True)
class Drawings:
    """Drawings in the order in which they were read.

    Attributes:
        where: the file or folder, for messages.
        images: uint8 (n, 105, 105), 0 ink and 255 background.
        labels: int64 (n,), file number - 1.
        numbers: int64 (n,), the drawing's number, which is that of the person who drew it, from 1.
        class_names: label -> ``"<Alphabet>_<character - 1>"``.
        numbers_known: False where ``numbers`` only count appearances within a class.
    """

    where: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    class_names: dict[int, str]
    numbers_known: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One PNG: where it is, which class and drawing it is, and how to get its bytes."""

    where: str
    label: int
    number: int
    class_name: str
    read: Callable[[], bytes]


def locate_part(root: Path, split: str) -> Path | None:
    """Return the zip or the folder that holds ``split`` under ``root``, or None.

    Looks in ``root/omniglot-py`` and in ``root`` itself; a zip is preferred to a folder.
    """
    for folder in (root / _FOLDER, root):
        for candidate in (folder / f"{PARTS[split]}.zip", folder / PARTS[split]):
            if candidate.exists():
                return _innermost(candidate)
    for name in (f"{PARTS[split]}.zip", PARTS[split]):
        for folder in folders_named(root, (_FOLDER, "omniglot")):
            found = [path for path in members(folder) if path.name.lower() == name]
            if found:
                return _innermost(found[0])
    return None


def _innermost(part: Path) -> Path:
    """Return the folder of alphabets in ``part``; some archives unpack a level deeper."""
    inside = (part, *(path for path in folders_named(part.parent, (part.name,)) if path != part))
    return next((path for path in inside if any(path.glob("*/character*"))), part)


def expected_part(root: Path, split: str) -> Path:
    """Return the path under which ``split`` is first looked for."""
    return root / _FOLDER / f"{PARTS[split]}.zip"


def fingerprint(part: Path) -> str:
    """Identify the input of a cached bank.

    A zip by the SHA-256 of its bytes; a folder by that of the names, sizes and modification times
    of its files (reading all 32,460 would take as long as decoding them).
    """
    digest = hashlib.sha256()
    if part.is_file():
        digest.update(part.read_bytes())
    else:
        for path in sorted(part.rglob("*.png")):
            facts = path.stat()
            name = path.relative_to(part).as_posix()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_part(part: Path, expected: str) -> Drawings:
    """Decode every drawing of a zip or folder.

    Args:
        part: from ``locate_part``.
        expected: what should be there, for messages.

    Raises:
        ValueError: an unreadable zip or PNG, a member whose path leaves the archive, a picture
            that is not 105 x 105; the text names the file.
    """
    with _entries(part, expected) as entries:
        images = np.empty((len(entries), SIDE_PX, SIDE_PX), np.uint8)
        for row, entry in enumerate(_with_progress(entries, part.name)):
            images[row] = _decode(entry, expected)
        return _collect(part, images, entries)


def read_part_with_torchvision(part: Path, split: str, expected: str) -> Drawings:
    """Read a zip or folder through ``torchvision.datasets.Omniglot``.

    Its MD5 check is overridden, because honest copies of the zips differ in bytes, and its labels
    are not used: they restart at 0 in each split and follow the directory listing, which differs
    between file systems. Class and drawing are taken from each picture's path.
    """
    from torchvision.datasets import Omniglot

    class LocalOmniglot(Omniglot):
        def _check_integrity(self) -> bool:
            return True

    with scratch_folder(name="omniglot") as scratch:
        root = scratch / _FOLDER
        root.mkdir()
        if part.is_file():
            _unpack(part, root / PARTS[split], expected)
        else:
            (root / PARTS[split]).symlink_to(part.resolve(), target_is_directory=True)
        dataset = LocalOmniglot(str(scratch), background=split == "train")
        folder = Path(dataset.target_folder)
        entries = []
        for name, character in dataset._flat_character_images:
            path = folder / dataset._characters[character] / name
            entry = _parse(path.relative_to(folder).as_posix(), str(path), path.read_bytes)
            if entry is None:
                raise ValueError(f"{path}: not an Omniglot file name; expected <ID>_<drawing>.png")
            entries.append(entry)
        images = np.empty((len(entries), SIDE_PX, SIDE_PX), np.uint8)
        for row, entry in enumerate(_with_progress(entries, part.name)):
            picture, _ = dataset[row]
            images[row] = _checked(np.asarray(picture), entry, expected)
    return _collect(part, images, entries)


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG to 8-bit grey (H, W); a 1-bit picture comes out as 0 and 255, not 0 and 1."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("L"))


def _decode(entry: Entry, expected: str) -> NDArray[np.uint8]:
    """Return the pixels of one drawing, or name the file that is broken."""
    try:
        grey = decode_png(entry.read())
    except Exception as error:  # zlib, zipfile and Pillow raise almost anything over damaged bytes
        raise ValueError(
            f"{entry.where}: not a readable PNG ({error}); expected {expected}"
        ) from error
    return _checked(grey, entry, expected)


def _checked(grey: NDArray[np.uint8], entry: Entry, expected: str) -> NDArray[np.uint8]:
    """Return ``grey`` if it has the size of a drawing."""
    if grey.shape != (SIDE_PX, SIDE_PX):
        height, width = grey.shape
        raise ValueError(
            f"{entry.where}: the picture is {width} x {height} px; expected {expected}"
        )
    return grey


def _collect(part: Path, images: NDArray[np.uint8], entries: list[Entry]) -> Drawings:
    """Bind pixels to what the file names say."""
    return Drawings(
        where=str(part),
        images=images,
        labels=np.array([entry.label for entry in entries], np.int64),
        numbers=np.array([entry.number for entry in entries], np.int64),
        class_names={entry.label: entry.class_name for entry in entries},
    )


@contextmanager
def _entries(part: Path, expected: str) -> Iterator[list[Entry]]:
    """Open a zip or folder and list its drawings; the zip stays open inside the context."""
    if part.is_file():
        with _open_zip(part, expected) as archive:
            yield [entry for entry in _zip_entries(archive, part)]
    else:
        found = []
        for path in sorted(part.rglob("*.png")):
            inside = "/".join(path.relative_to(part).parts[-3:])
            entry = _parse(inside, str(path), path.read_bytes)
            if entry is not None:
                found.append(entry)
        yield found


@contextmanager
def _open_zip(part: Path, expected: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip, or say in one sentence what is wrong with it."""
    try:
        archive = zipfile.ZipFile(part)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ValueError(
            f"{part}: not a readable zip of {part.stat().st_size:,} bytes ({error}); "
            f"truncated or damaged? expected {expected}"
        ) from error
    with archive:
        yield archive


def _zip_entries(archive: zipfile.ZipFile, part: Path) -> Iterator[Entry]:
    """Yield the drawings of a zip; members that are none (folders, notes) are passed over."""
    for member in archive.infolist():
        pure = PurePosixPath(member.filename.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
            raise ValueError(
                f"{part}: member {member.filename!r} points outside the archive; "
                "expected only paths below images_background/ or images_evaluation/"
            )
        inside = "/".join(pure.parts[-3:])  # in whatever folders the archive has around them
        where = f"{part}: member {member.filename!r}"
        if member.file_size > _MAX_PNG_BYTES:
            raise ValueError(f"{where} unpacks to {member.file_size:,} bytes; expected a drawing")
        entry = _parse(inside, where, partial(archive.read, member))
        if entry is not None:
            yield entry


def _unpack(part: Path, target: Path, expected: str) -> None:
    """Write the drawings of a zip below ``target``, under the names that were understood."""
    with _entries(part, expected) as entries:
        for entry in entries:
            alphabet, character = entry.class_name.rsplit("_", 1)
            folder = target / alphabet / f"character{int(character) + 1:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                data = entry.read()
            except Exception as error:  # as in _decode
                raise ValueError(
                    f"{entry.where}: not readable ({error}); expected {expected}"
                ) from error
            (folder / f"{entry.label + 1:04d}_{entry.number:02d}.png").write_bytes(data)


def _parse(inside: str, where: str, read: Callable[[], bytes]) -> Entry | None:
    """Understand ``<Alphabet>/characterNN/<ID>_<drawing>.png``, or return None."""
    match = _MEMBER.fullmatch(inside)
    if match is None or match["alphabet"].startswith(".") or int(match["id"]) == 0:
        return None
    return Entry(
        where=where,
        label=int(match["id"]) - 1,
        number=int(match["drawing"]),
        class_name=f"{match['alphabet']}_{int(match['character']) - 1}",
        read=read,
    )


def _with_progress(entries: list[Entry], name: str) -> Iterator[Entry]:
    """Show a progress bar on a terminal; decoding all of Omniglot takes about ten seconds."""
    from tqdm import tqdm

    quiet = len(entries) < 1000 or bool(os.environ.get("TQDM_DISABLE"))
    yield from tqdm(
        entries, desc=f"decoding {name}", unit="png", leave=False, disable=quiet or None
    )

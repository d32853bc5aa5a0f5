"""Files and folders under the names that people's copies have: other cases, spellings, depths."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

#: Levels below a set's folder that are looked through: an archive may bring a folder of its own.
DEPTH = 2


def members(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing if it is none, or may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def holds(folder: Path, pattern: str) -> bool:
    """Say whether a folder holds a name of that pattern, in any case and spelling."""
    patterns = [one.lower() for one in spellings(pattern)]
    names = [path.name.lower() for path in members(folder)]
    return any(fnmatch.fnmatchcase(name, one) for one in patterns for name in names)


def spellings(name: str) -> tuple[str, ...]:
    """Return the names that a published file has in the copies about.

    >>> spellings("train-images-idx3-ubyte.gz")
    ('train-images-idx3-ubyte.gz', 'train-images.idx3-ubyte.gz')
    """
    return tuple(dict.fromkeys((name, name.replace("-idx", ".idx"))))


def find_file(folder: Path, *names: str) -> Path | None:
    """Return the first of ``names`` that is a file in ``folder``, in any case and spelling.

    A file in a folder of its own name, as some archives unpack, is found as well.
    """
    exact = next((folder / name for name in names if (folder / name).is_file()), None)
    if exact:
        return exact
    present = {path.name.lower(): path for path in members(folder)}
    for name in (spelled.lower() for one in names for spelled in spellings(one)):
        path = present.get(name)
        if path is not None and path.is_dir():
            path = find_file(path, name)
        if path is not None and path.is_file():
            return path
    return None


def folders_named(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders of these relative names, then those in another case, then deeper ones."""
    yield from (root / name for name in names)
    named = [found for name in names if name != "." for found in _in_any_case(root, name)]
    yield from named
    for folder in named:
        yield from _below(folder, DEPTH)


def is_named(folder: Path, names: Sequence[str]) -> bool:
    """Say whether a folder's path ends with one of these relative names, in any case.

    >>> is_named(Path("/data/mnist/Raw"), ["MNIST/raw"]), is_named(Path("/data"), ["."])
    (True, False)
    """
    parts = [part.lower() for part in folder.absolute().parts]
    ends = [[part.lower() for part in PurePath(name).parts] for name in names]
    return any(end and parts[-len(end) :] == end for end in ends)


def _in_any_case(root: Path, name: str) -> Iterator[Path]:
    found = [root]
    for part in PurePath(name).parts:
        found = [
            path
            for folder in found
            for path in members(folder)
            if path.name.lower() == part.lower() and path.is_dir()
        ]
    yield from found


def _below(folder: Path, depth: int) -> Iterator[Path]:
    inside = [path for path in members(folder) if path.is_dir() and path.name[0] != "."]
    yield from inside
    if depth > 1:
        for path in inside:
            yield from _below(path, depth - 1)

"""Files that are never seen half-written, and whose temporary forms do not outlive a kill for long.

Whatever is written under a temporary name first is written through ``replacing`` (a file),
``scratch_folder`` or ``temporary_name``. Such a name carries the key of its writer,

    .<name>.<place>-<pid>-<start>-<number>.tmp

so that the next process that writes into the folder removes what a killed one left there, and
never what a living one is writing.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from trainrig.processes import is_running, process_key

#: Seconds without a write after which a temporary file counts as left behind, if its writer cannot
#: be seen: it ran on another host, in another container, or before a reboot.
ABANDONED_S = 24 * 3600.0
_TEMPORARY = re.compile(r"\..+\.(?P<key>[0-9a-f]{12}-\d+-\d+)-\d+\.tmp")
_numbers = itertools.count()
#: Folders that this process has looked through.
_swept: set[Path] = set()
#: What a file system says that cannot make a folder's entries durable.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)


def temporary_name(path: Path) -> Path:
    """Return a name of this process for what is renamed to ``path`` when it is whole.

    The first call for a folder removes what killed processes left in it.
    """
    folder = path.parent
    if folder not in _swept:
        _swept.add(folder)
        remove_abandoned(folder)
    name = path.name.encode()[:150].decode(errors="ignore")  # a file's name has 255 bytes
    return folder / f".{name}.{process_key()}-{next(_numbers)}.tmp"


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files and folders in ``folder`` whose writers are no longer at work.

    One whose writer cannot be seen from here is removed when nothing was written to it for a day.
    """
    try:
        found = [Path(entry) for entry in os.scandir(folder) if entry.name.endswith(".tmp")]
    except OSError:  # no such folder, or none of ours to look into
        return
    for path in found:
        match = _TEMPORARY.fullmatch(path.name)
        if match and _is_abandoned(path, match["key"]):
            remove_quietly(path)


def _is_abandoned(path: Path, key: str) -> bool:
    running = is_running(key)
    if running is not None:
        return not running
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False


def remove_quietly(path: Path) -> None:
    """Remove a file or a folder as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write what becomes ``path`` when the block ends well; else it is removed.

    The file is on the disk before it gets its name, and its name before this returns.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is unchanged then, and
            the error names it.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with naming(path, temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise
    fsync_directory(path.parent)


@contextlib.contextmanager
def scratch_folder(folder: Path | None = None, name: str = "scratch") -> Iterator[Path]:
    """Yield a new folder within ``folder`` (default: the system's for temporary files).

    It is removed at the end; after a kill, by the next process that makes one beside it.
    """
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    made = temporary_name(parent / name)
    made.mkdir()
    try:
        yield made
    finally:
        remove_quietly(made)


def write_durably(path: Path, content: bytes) -> None:
    """Write ``content`` and wait until it is on the disk; not atomic on its own."""
    with naming(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """Let an ``OSError`` of a write (a full disk) say which file it is about.

    Args:
        path: the file.
        instead_of: a temporary name of it, which means nothing to a reader.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or error.filename == str(instead_of)
        if unnamed and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser raises over a damaged file into one error that names the file.

    Parsers of foreign formats (HDF5, zip, pickle, npy) raise almost anything over damaged bytes, so
    any exception is taken; a user's mistake that names ``path`` already passes unchanged.

    Raises:
        ValueError: ``<path>: not a readable <what> (<reason>)``.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ImportError) or getattr(error, "filename", None) is not None:
            raise  # a package that is missing, or what the file system says
        if isinstance(error, ValueError | KeyError) and str(path) in str(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a readable {what} ({reason})") from None


def write_atomically(path: Path, content: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Replace ``path`` by ``content``, or by what that writes to a file, in one step.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is unchanged then.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (no NaN or Infinity) atomically."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is not JSON.
        FileNotFoundError: there is no such file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def fsync_directory(path: Path) -> None:
    """Make renames inside ``path`` durable, where the file system can; others do without."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def cache_dir() -> Path:
    """Return the folder of what can be made again: $TRAINRIG_CACHE_DIR, or ``~/.cache/trainrig``.

    A user without a home (a number that the machine does not know, in a container) gets a folder
    beside the system's temporary files.
    """
    configured = os.environ.get("TRAINRIG_CACHE_DIR")
    if configured:
        return expanded(configured)
    try:
        return Path.home() / ".cache" / "trainrig"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"trainrig-cache-{os.getuid()}"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return the path with ``~`` replaced.

    Raises:
        ValueError: the user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder; set HOME, or give a path") from None

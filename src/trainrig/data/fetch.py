"""Puts data sets below a data folder: from archives on this machine, or by download."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from trainrig.data import tolstoi
from trainrig.data.catalogue import DataSet, get_data_set
from trainrig.data.cifar10_jpeg import write_batches
from trainrig.data.download import download_file
from trainrig.data.locations import put_root
from trainrig.data.published_files import file_digest
from trainrig.files import reading, replacing, scratch_folder


def get(
    name: str, root: Path, source: Path | None = None, only: Collection[str] | None = None
) -> str:
    """Put a set below ``root``; what is there already is neither fetched nor replaced.

    Args:
        name: of the catalogue.
        root: the data folder; what cannot be written there goes where ``put_root`` says. An archive
            in it, or in a folder of it, is unpacked.
        source: searched, with all its subfolders, before anything is downloaded.
        only: names of the files wanted, of a set that is downloaded in several.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: not below ``source``, and not to be downloaded.
        ConnectionError: no network.
        ValueError: an unknown name, or a file that is not what was published.
    """
    data_set = get_data_set(name)
    if data_set.drawn:
        return "drawn when it is used; there is nothing to get"
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"--source {source}: no such folder")
    folder = data_set.locate(root)
    if folder is not None and not data_set.missing(folder):
        return f"already in {folder}"
    if data_set.archives or data_set.texts:
        return _get_archive(data_set, root, source)
    if data_set.files:
        folder = folder or put_root(root) / data_set.folders[0]
        return _get_files(data_set, folder, source, only)
    raise FileNotFoundError(
        f"{name}: cannot be downloaded ({data_set.licence}); see {data_set.page} and put it into "
        f"{root / data_set.folders[0]}"
    )


def _get_files(
    data_set: DataSet, folder: Path, source: Path | None, only: Collection[str] | None
) -> str:
    missing = data_set.missing(folder)
    wanted = [f for f in data_set.files if f.name in missing and (only is None or f.name in only)]
    for file in wanted:
        found = next((p for p in _below(source, file.name) if _is_published(p, data_set)), None)
        if found is None:
            download_file(f"{data_set.url}/{file.name}", folder / file.name, file)
        else:
            _copy(found, folder / file.name)
    return f"{', '.join(file.name for file in wanted) or 'all that was asked for'} in {folder}"


def _is_published(path: Path, data_set: DataSet) -> bool:
    """Say whether a file is one of the published ones; without a record of them any is."""
    known = [files[path.name] for files in data_set.copies.values() if path.name in files]
    return not known or any(file_digest(path, one.algorithm) == one.digest for one in known)


def _get_archive(data_set: DataSet, root: Path, source: Path | None) -> str:
    names = (*data_set.archives, *data_set.texts, *data_set.lossy)
    below = chain.from_iterable(_below(source, name) for name in names)
    found = data_set.archive(root) or next(below, None)
    root = put_root(root)
    if found is not None:
        return _put(found, data_set, root)
    if not data_set.files:
        raise FileNotFoundError(
            f"{data_set.name}: no download is known with the published edition; give the folder of "
            f"{' or '.join((*data_set.archives, *data_set.texts))} as --source"
        )
    root.mkdir(parents=True, exist_ok=True)
    (file,) = data_set.files
    target = root / data_set.archives[file.name]
    with scratch_folder(root, file.name) as scratch:
        archive = scratch / file.name
        download_file(f"{data_set.url}/{file.name}", archive, file, by_hand=root)
        return f"{_unpack(archive, target)} files in {target}"


def _put(found: Path, data_set: DataSet, root: Path) -> str:
    """Unpack or convert what is at hand."""
    if found.name in data_set.archives:
        target = root / data_set.archives[found.name]
        return f"{_unpack(found, target)} files from {found} in {target}"
    if found.name in data_set.lossy:
        target = root / data_set.lossy[found.name]
        return f"{write_batches(found, target)} files of a lossy copy from {found} in {target}"
    folder = root / data_set.folders[0]
    return f"{_convert(found, folder)} in {folder}"


def _convert(text: Path, folder: Path) -> str:
    with reading(text, "text; fetch it again"):
        content = text.read_bytes()
        content = gzip.decompress(content) if text.suffix == ".gz" else content
        decoded = content.decode("utf-8")
    try:
        return f"{tolstoi.prepare_tolstoi(decoded, folder)} different characters from {text}"
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _below(folder: Path | None, name: str) -> Iterator[Path]:
    """Yield the files of this name in and below ``folder``, linked folders included."""
    for parent, subfolders, files in os.walk(folder or "", followlinks=True):
        subfolders.sort()
        if name in files:
            yield Path(parent) / name


def _copy(found: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(found, temporary)


def _unpack(archive: Path, folder: Path) -> int:
    """Put the plain files of an archive flat into ``folder``: whole ones only, nowhere else."""
    with scratch_folder(folder.parent, folder.name) as scratch:
        with reading(archive, "archive; fetch it again"), tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and not name.startswith("."):
                    content = tar.extractfile(member)
                    assert content is not None  # a plain file
                    with (scratch / name).open("wb") as out:
                        shutil.copyfileobj(content, out)
        folder.mkdir(exist_ok=True)
        files = sorted(scratch.iterdir())
        for path in files:
            if not (folder / path.name).exists():
                os.replace(path, folder / path.name)
    return len(files)

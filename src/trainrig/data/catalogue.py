"""Every data set: where it is looked for, what its files must be, and how it is had.

The loaders, ``trainrig data`` and ``trainrig doctor`` all read this one table; nothing here imports
torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainrig.data.download import Upstream
from trainrig.data.locations import data_root, put_root
from trainrig.data.lookup import folders_named, holds
from trainrig.data.published_files import (
    CIFAR10,
    CIFAR10_JPEG,
    CIFAR10_JPEG_BINARY,
    CIFAR10_ORIGINAL,
    CIFAR100,
    CIFAR100_ORIGINAL,
    FASHION_MNIST,
    FASHION_MNIST_PLAIN,
    MNIST,
    MNIST_PLAIN,
    OMNIGLOT,
    SVHN,
    Copies,
    FileFacts,
)
from trainrig.errors import nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """One data set.

    Attributes:
        name: what ``trainrig data`` calls it.
        alias: another name that a loader has for it.
        what: its content in a few words.
        used_by: the systems that read it.
        folders: below a data folder, in the order looked at; the first one is where it is put.
        parts: files (glob patterns) that make it up, each with its alternatives.
        copies: published copies by name, with what their files must be.
        url: base address of ``files``.
        files: what is downloaded; a ``.tar.gz`` is unpacked.
        archives: names that an archive on this machine may have, and the folder it becomes.
        texts: names that a plain text on this machine may have, where one is converted.
        lossy: names that an archive of a lossy copy may have, and the folder it becomes. It is
            taken only where it was asked for by ``--source``.
        licence: as its publishers state it.
        page: where they describe it.
    """

    name: str
    alias: str = ""
    what: str
    used_by: Sequence[str]
    folders: Sequence[str]
    parts: Sequence[Sequence[str]]
    copies: Copies = field(default_factory=dict)
    url: str = ""
    files: Sequence[Upstream] = ()
    archives: dict[str, str] = field(default_factory=dict)
    texts: Sequence[str] = ()
    lossy: dict[str, str] = field(default_factory=dict)
    licence: str
    page: str

    @property
    def n_bytes(self) -> int:
        """Bytes to download, 0 where that cannot be done."""
        return sum(file.n_bytes for file in self.files)

    def command(self, root: Path) -> str:
        """Return what puts the set below the data folder ``root``."""
        get = f"trainrig data get {self.name}"
        if root != data_root():
            get += f" --data-dir {shlex.quote(str(root))}"
        lossy = _first(root, self.lossy)
        if self.archive(root):
            return get
        if self.files and lossy:
            source = shlex.quote(str(lossy.parent))
            return f"{get}, or from {lossy.name} (a lossy copy) {get} --source {source}"
        if self.files:
            return get
        if self.archives or self.texts:
            return f"{get} --source FOLDER"
        return f"by hand, {self.page}"

    def archive(self, root: Path) -> Path | None:
        """Return an archive or text in ``root``, or in a folder of it, that becomes the set."""
        return _first(root, (*self.archives, *self.texts))

    def missing(self, folder: Path) -> list[str]:
        """Return the parts of which ``folder`` holds no alternative."""
        return [part[0] for part in self.parts if not any(holds(folder, name) for name in part)]

    def locate(self, root: Path) -> Path | None:
        """Return the first folder of ``root`` that holds a part of the set, or None.

        Names may be in another case, and the files some levels deeper than they should be. Of a
        folder that is only read, the one where its sets are put is looked through as well.
        """
        roots = dict.fromkeys((root, put_root(root)))
        folders = (folder for root in roots for folder in folders_named(root, self.folders))
        return next((folder for folder in folders if self.has_part(folder)), None)

    def has_part(self, folder: Path) -> bool:
        """Say whether ``folder`` holds a part of the set."""
        return len(self.missing(folder)) < len(self.parts)


def find(name: str, roots: Iterable[Path]) -> Path:
    """Return the folder of a set below the first of ``roots`` that holds a part of it.

    Raises:
        FileNotFoundError: none does; the message lists where was looked, and how to get the set.
    """
    data_set, roots = get_data_set(name), list(roots)
    for root in roots:
        folder = data_set.locate(root)
        if folder is not None:
            return folder
    for root in roots:
        if data_set.has_part(root):
            raise FileNotFoundError(
                f"{name}: its files lie in {root} itself, where those of other sets may have the "
                f"same names; move them into {root / data_set.folders[0]}"
            )
    looked = ", ".join(str(root / folder) for root in roots for folder in data_set.folders)
    raise FileNotFoundError(
        f"{name}: no data found (looked in {looked}); get it with: trainrig data get {name} "
        f"--data-dir {roots[-1]}"
    )


def _first(root: Path, names: Iterable[str]) -> Path | None:
    found = (path for name in names for path in (root / name, *sorted(root.glob(f"*/{name}"))))
    return next((path for path in found if path.is_file()), None)


def get_data_set(name: str) -> DataSet:
    """Return the data set of a name or alias.

    Raises:
        ValueError: an unknown name, with the nearest one.
    """
    known = {n: data_set for data_set in DATA_SETS for n in (data_set.name, data_set.alias) if n}
    if name not in known:
        accepted = ", ".join(data_set.name for data_set in DATA_SETS)
        raise ValueError(
            f"data set {name!r} is unknown{nearest(name, known)} (accepted: {accepted})"
        )
    return known[name]


def _facts(files: Iterable[Upstream]) -> dict[str, FileFacts]:
    return {file.name: FileFacts(file.n_bytes, file.sha256) for file in files}


_IDX_PARTS = tuple((file, file.removesuffix(".gz")) for file in _facts(MNIST))
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz"

DATA_SETS = (
    DataSet(
        name="omniglot",
        what="1,623 handwritten characters x 20, 105 px",
        used_by=("ICL",),
        folders=("omniglot-py", ".", "omniglot"),
        parts=tuple((file.name, file.name.removesuffix(".zip")) for file in OMNIGLOT),
        url="https://github.com/brendenlake/omniglot/raw/master/python",
        files=OMNIGLOT,
        licence="MIT",
        page="https://github.com/brendenlake/omniglot",
    ),
    DataSet(
        name="mnist",
        what="60,000 + 10,000 digits, grey, 28 px",
        used_by=("optimizer quality", "DeepOBS"),
        folders=("MNIST/raw", "MNIST", "mnist", "mnist/MNIST/raw"),
        parts=_IDX_PARTS,
        copies={"published": _facts(MNIST), "unzipped": MNIST_PLAIN},
        url="https://storage.googleapis.com/cvdf-datasets/mnist",
        files=MNIST,
        licence="CC BY-SA 3.0",
        page="http://yann.lecun.com/exdb/mnist",
    ),
    DataSet(
        name="fashion_mnist",
        alias="fmnist",
        what="60,000 + 10,000 pieces of clothing, grey, 28 px",
        used_by=("optimizer quality", "DeepOBS"),
        folders=(
            "FashionMNIST/raw",
            "FashionMNIST",
            "fmnist",
            "fmnist/FashionMNIST/raw",
            "fashion_mnist",
            "fashion-mnist",
        ),
        parts=_IDX_PARTS,
        copies={"published": _facts(FASHION_MNIST), "unzipped": FASHION_MNIST_PLAIN},
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        files=FASHION_MNIST,
        licence="MIT",
        page="https://github.com/zalandoresearch/fashion-mnist",
    ),
    DataSet(
        name="cifar10",
        what="50,000 + 10,000 photographs of 10 classes, 32 px",
        used_by=("optimizer quality", "DeepOBS"),
        folders=(
            *("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10"),
            *("cifar-10/cifar-10-batches-py", "cifar-10/cifar-10-batches-bin", "cifar10"),
        ),
        parts=tuple((name, f"{name}.bin") for name in CIFAR10_ORIGINAL),
        copies={
            "original": CIFAR10_ORIGINAL,
            "JPEG": CIFAR10_JPEG,
            "JPEG, binary": CIFAR10_JPEG_BINARY,
        },
        url=_CIFAR_URL,
        files=CIFAR10,
        archives={
            "cifar-10-python.tar.gz": "cifar-10-batches-py",
            "cifar-10-binary.tar.gz": "cifar-10-batches-bin",
        },
        lossy={"cifar10-jpeg.tar.xz": "cifar-10-batches-bin"},
        licence="none stated; cite Krizhevsky 2009",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    DataSet(
        name="cifar100",
        what="50,000 + 10,000 photographs of 100 classes, 32 px",
        used_by=("optimizer quality", "DeepOBS"),
        folders=(
            *("cifar-100-python", "cifar-100-binary", "cifar-100"),
            *("cifar-100/cifar-100-python", "cifar-100/cifar-100-binary", "cifar100"),
        ),
        parts=tuple((name, f"{name}.bin") for name in CIFAR100_ORIGINAL),
        copies={"original": CIFAR100_ORIGINAL},
        url=_CIFAR_URL,
        files=CIFAR100,
        archives={
            "cifar-100-python.tar.gz": "cifar-100-python",
            "cifar-100-binary.tar.gz": "cifar-100-binary",
        },
        licence="none stated; cite Krizhevsky 2009",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    DataSet(
        name="svhn",
        what="73,257 + 26,032 house-number digits, 32 px",
        used_by=("DeepOBS",),
        folders=("svhn", "SVHN"),
        parts=(("train_32x32.mat", "data_batch_*.bin"), ("test_32x32.mat", "test_batch.bin")),
        copies={"original": _facts(SVHN)},
        url="http://ufldl.stanford.edu/housenumbers",
        files=SVHN,
        licence="non-commercial use only",
        page="http://ufldl.stanford.edu/housenumbers",
    ),
    DataSet(
        name="tolstoi",
        what="War and Peace, 3,266,185 characters",
        used_by=("DeepOBS",),
        folders=("tolstoi",),
        parts=(("train.npy",), ("test.npy",)),
        archives={"tolstoi-deepobs.tar.gz": "tolstoi"},
        texts=("war-and-peace.txt.gz", "war-and-peace.txt"),
        licence="public domain",
        page="https://www.gutenberg.org/ebooks/2600",
    ),
    DataSet(
        name="imagenet",
        what="1.28 million photographs of 1,000 classes, as <split>/<synset>/<name>.JPEG",
        used_by=("DeepOBS",),
        folders=("imagenet", "ImageNet"),
        parts=(("train",), ("val", "validation", "test")),
        licence="non-commercial research, after registration",
        page="https://www.image-net.org",
    ),
)

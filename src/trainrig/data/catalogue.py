"""The one table of data sets: where each is looked for, what its files must be, how it is read.

Every system, ``trainrig data`` and ``trainrig doctor`` read it: a new set is one reader and one
``register`` line. Nothing here imports torch; a reader is named by text and imported when it reads.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrig.data.download import Upstream
from trainrig.data.locations import data_root, put_root
from trainrig.data.lookup import folders_named, holds, is_named
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
class Images:
    """How a set of labelled images is read, and what its use needs to know.

    Attributes:
        reader: ``module:function`` of (folder, ``"train"`` or ``"test"``), which returns
            ``RawImages``; the folder is None where a set is drawn.
        shape: channels, height and width of an image.
        n_classes: labels are 0..n_classes-1.
        mean: per channel, of values in 0..1.
        std: per channel.
        flip: whether a mirrored image keeps its class.
    """

    reader: str
    shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """One data set.

    Attributes:
        name: what ``trainrig data`` calls it.
        alias: another name that a loader has for it.
        what: its content in a few words.
        images: how it is read as labelled images; None of other sets.
        banks: by name of an image source, ``module:function`` of (data folder, source, options),
            which returns an ``ImageBank``; for sets of many classes with few images each.
        folders: below a data folder, in the order looked at; the first one is where it is put. None
            where the program draws the set.
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
    images: Images | None = None
    banks: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()
    parts: Sequence[Sequence[str]] = ()
    copies: Copies = field(default_factory=dict)
    url: str = ""
    files: Sequence[Upstream] = ()
    archives: dict[str, str] = field(default_factory=dict)
    texts: Sequence[str] = ()
    lossy: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    page: str = ""

    @property
    def drawn(self) -> bool:
        """Whether the program draws it, so that there is nothing to get."""
        return not self.folders

    @property
    def n_bytes(self) -> int:
        """Bytes to download, 0 where that cannot be done."""
        return sum(file.n_bytes for file in self.files)

    def command(self, root: Path) -> str:
        """Return what puts the set below the data folder ``root``."""
        if self.drawn:
            return "drawn when it is used"
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
        folder that is only read, the one where its sets are put is looked through as well. A data
        folder that has the name of the set's own folder may be that one.
        """
        roots = dict.fromkeys((root, put_root(root)))
        folders = (folder for root in roots for folder in folders_named(root, self.folders))
        own = [root] if is_named(root, self.folders) else []
        return next((folder for folder in (*folders, *own) if self.has_part(folder)), None)

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


def register(data_set: DataSet) -> DataSet:
    """Add a data set to the table, for every system and command that can use it.

    Raises:
        ValueError: its name, alias or an image source of it is taken.
    """
    taken = {*names(), *sources()}
    for name in (data_set.name, data_set.alias, *data_set.banks):
        if name in taken:
            raise ValueError(f"data set {name!r} is registered already; choose another name")
    DATA_SETS.append(data_set)
    return data_set


def names() -> dict[str, DataSet]:
    """Return the data sets by name and alias."""
    return {name: one for one in DATA_SETS for name in (one.name, one.alias) if name}


def get_data_set(name: str) -> DataSet:
    """Return the data set of a name or alias.

    Raises:
        ValueError: an unknown name, with the nearest one.
    """
    known = names()
    if name not in known:
        accepted = ", ".join(data_set.name for data_set in DATA_SETS)
        raise ValueError(
            f"data set {name!r} is unknown{nearest(name, known)} (accepted: {accepted})"
        )
    return known[name]


def image_sets() -> dict[str, DataSet]:
    """Return the sets of labelled images by name."""
    return {one.name: one for one in DATA_SETS if one.images}


def sources() -> dict[str, DataSet]:
    """Return what in-context learning can draw sequences from, by the name of the image source."""
    return {source: one for one in DATA_SETS for source in one.banks}


def load_function(text: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names."""
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


def _facts(files: Iterable[Upstream]) -> dict[str, FileFacts]:
    return {file.name: FileFacts(file.n_bytes, file.sha256) for file in files}


_IDX_PARTS = tuple((file, file.removesuffix(".gz")) for file in _facts(MNIST))
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz"

DATA_SETS = [
    DataSet(
        name="omniglot",
        what="1,623 handwritten characters x 20, 105 px",
        banks=dict.fromkeys(
            ("omniglot", "files", "torchvision", "tfds"), "trainrig.data.omniglot:load_source"
        ),
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
        images=Images(
            reader="trainrig.data.mnist:read_mnist",
            shape=(1, 28, 28),
            n_classes=10,
            mean=(0.1307,),
            std=(0.3081,),
            flip=False,
        ),
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
        images=Images(
            reader="trainrig.data.mnist:read_mnist",
            shape=(1, 28, 28),
            n_classes=10,
            mean=(0.2860,),
            std=(0.3530,),
        ),
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
        images=Images(
            reader="trainrig.data.cifar10:read_cifar10",
            shape=(3, 32, 32),
            n_classes=10,
            # The specification's values. The set's own std is 0.2470/0.2435/0.2616; these are the
            # means of the single images' standard deviations, in wide use.
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        ),
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
        images=Images(
            reader="trainrig.data.cifar100:read_cifar100",
            shape=(3, 32, 32),
            n_classes=100,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
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
        images=Images(
            reader="trainrig.data.svhn:read_svhn",
            shape=(3, 32, 32),
            n_classes=10,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            flip=False,
        ),
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
        folders=("imagenet", "ImageNet"),
        parts=(("train",), ("val", "validation", "test")),
        licence="non-commercial research, after registration",
        page="https://www.image-net.org",
    ),
    DataSet(
        name="glyphs",
        what="1,623 drawn characters x 20, 28 px",
        banks={"synthetic": "trainrig.data.glyphs:load_source"},
    ),
    DataSet(
        name="synthetic",
        what="drawn shapes",
        images=Images(
            reader="trainrig.data.shapes:read_shapes",
            shape=(3, 32, 32),
            n_classes=10,
            mean=(0.32, 0.32, 0.32),
            std=(0.25, 0.25, 0.25),
        ),
    ),
]

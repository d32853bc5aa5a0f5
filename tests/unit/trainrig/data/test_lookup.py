"""Data sets under the names and in the folders that people's copies have: found, or a hint."""

from __future__ import annotations

import gzip
import io
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from trainrig.data.catalogue import find, get_data_set
from trainrig.data.cifar10 import read_cifar10
from trainrig.data.cifar100 import read_cifar100
from trainrig.data.mnist import FILES, read_mnist
from trainrig.data.omniglot import is_present, load_omniglot
from trainrig.data.svhn import read_svhn
from trainrig.data.tolstoi import read_tolstoi

PIXELS = np.arange(6 * 784).astype(np.uint8).reshape(6, 28, 28)
DIGITS = np.arange(6).astype(np.uint8)
FLAT = np.arange(6 * 3072).astype(np.uint8).reshape(6, 3072)


def idx(array):
    head = {3: 2051, 1: 2049}[array.ndim].to_bytes(4, "big")
    return head + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist(rename=str, pack=bytes):
    names = [name for pair in FILES.values() for name in pair]
    return {rename(name): pack(idx(PIXELS if "images" in name else DIGITS)) for name in names}


def dotted(name):
    return name.replace("-idx", ".idx")


def svhn():
    files = {}
    for split in ("train", "test"):
        file = io.BytesIO()
        images = FLAT.reshape(6, 32, 32, 3).transpose(1, 2, 3, 0)
        savemat(file, {"X": images, "y": np.arange(1, 7)[:, None]})
        files[f"{split}_32x32.mat"] = file.getvalue()
    return files


def tolstoi():
    file = io.BytesIO()
    np.save(file, np.arange(9))
    return {"train.npy": file.getvalue(), "test.npy": file.getvalue()}


def cifar(*names):
    labels = DIGITS.tolist()
    batch = pickle.dumps({"data": FLAT, "labels": labels, "fine_labels": labels}, protocol=2)
    return dict.fromkeys(names, batch)


CIFAR10 = cifar(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
CIFAR100 = cifar("train", "test")
BINARY = {f"{name}.bin": np.concatenate([DIGITS[:, None], FLAT], 1).tobytes() for name in CIFAR10}
#: Data set, reader, folder below the data folder, files.
COPIES = [
    ("mnist", read_mnist, "MNIST/raw", mnist()),
    ("mnist", read_mnist, "MNIST", mnist()),
    ("mnist", read_mnist, "mnist/raw", mnist()),
    ("mnist", read_mnist, "mnist/MNIST/raw", mnist()),
    ("mnist", read_mnist, "Mnist/MNIST/RAW", mnist()),
    ("mnist", read_mnist, "MNIST/raw", mnist(dotted)),
    ("mnist", read_mnist, "MNIST", mnist(lambda n: f"{dotted(n)}.gz", gzip.compress)),
    ("mnist", read_mnist, "MNIST", mnist(lambda n: f"{n}.GZ".upper(), gzip.compress)),
    ("mnist", read_mnist, "MNIST", mnist(lambda n: f"{dotted(n)}/{dotted(n)}")),
    ("mnist", read_mnist, "MNIST/raw/raw", mnist()),
    ("mnist", read_mnist, "MNIST/raw/archive", mnist(lambda n: f"{n}.gz", gzip.compress)),
    ("fashion_mnist", read_mnist, "FashionMNIST/raw", mnist()),
    ("fashion_mnist", read_mnist, "fashionmnist", mnist(dotted)),
    ("fashion_mnist", read_mnist, "Fashion-MNIST/raw", mnist()),
    ("fashion_mnist", read_mnist, "fashion_mnist", mnist(lambda n: f"{n}.gz", gzip.compress)),
    ("cifar10", read_cifar10, "cifar-10-batches-py", CIFAR10),
    ("cifar10", read_cifar10, "cifar-10-batches-py/cifar-10-batches-py", CIFAR10),
    ("cifar10", read_cifar10, "CIFAR10/cifar-10-batches-py", CIFAR10),
    ("cifar10", read_cifar10, "cifar10", CIFAR10),
    ("cifar10", read_cifar10, "Cifar-10-Batches-bin", BINARY),
    ("cifar10", read_cifar10, "cifar10", {n.upper(): content for n, content in BINARY.items()}),
    ("cifar100", read_cifar100, "cifar-100-python/cifar-100-python", CIFAR100),
    ("cifar100", read_cifar100, "CIFAR100", CIFAR100),
    ("svhn", read_svhn, "svhn", svhn()),
    ("svhn", read_svhn, "SVHN/svhn", svhn()),
    ("svhn", read_svhn, "Svhn", {name.upper(): content for name, content in svhn().items()}),
    ("svhn", read_svhn, "svhn", BINARY),
    ("tolstoi", read_tolstoi, "tolstoi", tolstoi()),
    ("tolstoi", read_tolstoi, "Tolstoi/tolstoi", tolstoi()),
]


def place(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "reader", "folder", "files"),
    COPIES,
    ids=[f"{folder}: {next(iter(files))}" for _, _, folder, files in COPIES],
)
def test_copies_are_found_and_read(name, reader, folder, files, tmp_path):
    place(tmp_path / folder, files)
    found = find(name, [tmp_path])
    assert get_data_set(name).missing(found) == []
    for split in ("train", "test"):
        first = reader(found, split)[0]
        assert len(first) in (6, 9, 30)  # of five batches, or characters


def test_of_several_the_usual_place_is_taken(tmp_path):
    place(tmp_path / "mnist/raw/raw", mnist())
    place(tmp_path / "MNIST/raw", mnist())
    assert find("mnist", [tmp_path]) == tmp_path / "MNIST/raw"
    place(tmp_path / "FashionMNIST/raw", mnist())
    assert find("fashion_mnist", [tmp_path]) == tmp_path / "FashionMNIST/raw"


def test_files_that_lie_flat_in_the_data_folder_are_named(tmp_path):
    place(tmp_path, mnist())
    with pytest.raises(FileNotFoundError, match=f"its files lie in {tmp_path} itself.*move them"):
        find("mnist", [tmp_path])


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("mnist", "MNIST/raw", mnist()),
        ("mnist", "mnist", mnist()),
        ("cifar10", "cifar-10-batches-py", CIFAR10),
        ("svhn", "Svhn", svhn()),
        ("tolstoi", "tolstoi", tolstoi()),
    ],
)
def test_a_data_folder_may_be_the_set_itself(name, folder, files, tmp_path):
    place(tmp_path / folder, files)
    assert find(name, [tmp_path / folder]) == tmp_path / folder


def test_a_batch_that_is_missing_between_others_is_named(tmp_path):
    place(tmp_path, {n: content for n, content in BINARY.items() if n != "data_batch_3.bin"})
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: missing between the others"):
        read_svhn(tmp_path, "train")


def png():
    file = io.BytesIO()
    Image.fromarray(np.full((105, 105), 255, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("source", ["files", "torchvision"])
@pytest.mark.parametrize(
    "folder",
    [
        "omniglot-py/images_background",
        "omniglot-py/images_background/images_background",
        "images_background/images_background",
        "omniglot-py/omniglot-py/images_background",
        "Omniglot/images_background",
        "omniglot/python/Images_Background/images_background",
    ],
)
def test_omniglot_unpacked_deeper(folder, source, tmp_path):
    if source == "torchvision":
        pytest.importorskip("torchvision")
    drawing = png()
    drawings = {f"A/character01/0001_{n:02d}.png": drawing for n in (1, 2)}
    place(tmp_path / folder, drawings)
    bank = load_omniglot(tmp_path, source=source, split="train", complete=False, cache=False)
    assert tuple(bank.images.shape[:2]) == (1, 2)
    assert bank.class_names == ("A_0",)
    place(
        tmp_path / folder.replace("background", "evaluation").replace("Background", "Evaluation"),
        {"B/character01/0965_01.png": drawing},
    )
    assert is_present(tmp_path)

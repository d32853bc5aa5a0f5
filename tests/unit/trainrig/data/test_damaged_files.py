"""Every reader of every data set, given the usual wrong files: one sentence, with the path.

The kinds are those that people meet: an empty file, an error page of a web server, a download that
broke off, another file under the name, the right format with other content.
"""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deepobs.pytorch.datasets.imagenet import load_image
from trainrig.cli import describe
from trainrig.data.cifar10 import read_cifar10
from trainrig.data.cifar100 import read_cifar100
from trainrig.data.fetch import get
from trainrig.data.mnist import FILES, read_mnist
from trainrig.data.omniglot import load_omniglot
from trainrig.data.svhn import read_svhn
from trainrig.data.tolstoi import read_tolstoi

RNG = np.random.default_rng(0)
HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body></body></html>\n" * 20


def idx(array):
    head = (2048 + array.ndim).to_bytes(4, "big")
    if array.dtype == np.uint8:
        head = {3: 2051, 1: 2049, 2: 2050}[array.ndim].to_bytes(4, "big")
    return head + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mat(**arrays):
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(array):
    file = io.BytesIO()
    np.savez(file, a=array)
    return file.getvalue()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = RNG.integers(0, 256, (6, 28, 28)).astype(np.uint8)
DIGITS = np.arange(6).astype(np.uint8)
FLAT = RNG.integers(0, 256, (6, 3072)).astype(np.uint8)
RECORDS = np.concatenate([DIGITS[:, None], FLAT], 1).tobytes()
X = RNG.integers(0, 256, (32, 32, 3, 6)).astype(np.uint8)
Y = np.arange(1, 7)[:, None]
DRAWING = png(np.full((105, 105), 255, np.uint8))


def mnist(gz):
    end = ".gz" if gz else ""
    pack = gzip.compress if gz else bytes
    names = [name for pair in FILES.values() for name in pair]
    return {
        f"{name}{end}": pack(idx(IMAGES if "images" in name else DIGITS)) for name in names
    }, f"{FILES['train'][0]}{end}"


def cifar(key, name, *others):
    batch = pickle.dumps({"data": FLAT, key: DIGITS.tolist()}, protocol=2)
    return {file: batch for file in (name, *others)}, name


CIFAR = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
#: Data set and form: reader, files with the one that is damaged, content that is whole but wrong.
SETS = {
    "mnist": (
        lambda f: read_mnist(f, "train"),
        mnist(gz=False),
        [idx(IMAGES[0]), idx(DIGITS), idx(IMAGES[:, :20]), idx(IMAGES[:5]), idx(IMAGES[:0])],
    ),
    "mnist.gz": (
        lambda f: read_mnist(f, "train"),
        mnist(gz=True),
        [gzip.compress(HTML), gzip.compress(b""), idx(IMAGES)],
    ),
    "mnist labels": (
        lambda f: read_mnist(f, "train"),
        (mnist(gz=False)[0], FILES["train"][1]),
        [idx(DIGITS + 20), idx(DIGITS[:3]), idx(IMAGES)],
    ),
    "cifar10": (
        lambda f: read_cifar10(f, "train"),
        cifar("labels", CIFAR[0], *CIFAR[1:]),
        [
            pickle.dumps(FLAT),
            pickle.dumps([1, 2]),
            pickle.dumps({"data": FLAT}),
            pickle.dumps({"data": [*FLAT.tolist(), "x"], "labels": DIGITS}),
            pickle.dumps({"data": FLAT / 255, "labels": DIGITS}),
            pickle.dumps({"data": FLAT, "labels": DIGITS[:3]}),
            pickle.dumps({"data": FLAT, "labels": DIGITS.astype(int) + 300}),
            pickle.dumps({"data": FLAT, "labels": DIGITS.astype(int) - 3}),
            pickle.dumps({"data": FLAT, "labels": None}),
            pickle.dumps({"data": FLAT[:0], "labels": []}),
            pickle.dumps({"data": FLAT.reshape(6, 3, 32, 32), "labels": DIGITS}),
        ],
    ),
    "cifar10.bin": (
        lambda f: read_cifar10(f, "test"),
        ({"test_batch.bin": RECORDS}, "test_batch.bin"),
        [bytes([77]) + RECORDS[1:], RECORDS[:-1]],
    ),
    "cifar100": (
        lambda f: read_cifar100(f, "train"),
        cifar("fine_labels", "train"),
        [
            pickle.dumps({"data": FLAT, "labels": DIGITS}),
            pickle.dumps({"data": FLAT[:0], "fine_labels": []}),
            pickle.dumps({"data": FLAT, "fine_labels": DIGITS.astype(int) + 99}),
        ],
    ),
    "svhn": (
        lambda f: read_svhn(f, "train"),
        ({"train_32x32.mat": mat(X=X, y=Y)}, "train_32x32.mat"),
        [
            mat(X=X),
            mat(y=Y),
            mat(X=X.astype(float), y=Y),
            mat(X=X.transpose(3, 0, 1, 2), y=Y),
            mat(X=X, y=Y[:3]),
            mat(X=X, y=Y + 7),
            mat(X=X, y=Y + 0.5),
            mat(X="text", y="text"),
            mat(X=X[..., :0], y=Y[:0]),
        ],
    ),
    "svhn.bin": (
        lambda f: read_svhn(f, "test"),
        ({"test_batch.bin": RECORDS}, "test_batch.bin"),
        [bytes([77]) + RECORDS[1:], RECORDS[:-1]],
    ),
    "tolstoi": (
        lambda f: read_tolstoi(f, "train"),
        ({"train.npy": npy(np.arange(9)), "test.npy": npy(np.arange(9))}, "train.npy"),
        [
            npz(np.arange(9)),
            npy(np.arange(9.0)),
            npy(np.arange(9).reshape(3, 3)),
            npy(np.arange(9) - 1),
            npy(np.arange(0)),
            npy(np.array("text")),
            npy(np.array(["a", None], object)),
        ],
    ),
    "imagenet": (
        lambda f: load_image(f / "one.jpeg"),
        ({"one.jpeg": png(np.zeros((40, 50, 3), np.uint8))}, "one.jpeg"),
        [],
    ),
    "text": (
        lambda f: get("tolstoi", f),
        ({"war-and-peace.txt": b"x" * 1000}, "war-and-peace.txt"),
        [b"\xff\xfe\x00", b"too few different characters"],
    ),
    "text.gz": (
        lambda f: get("tolstoi", f),
        ({"war-and-peace.txt.gz": gzip.compress(b"x" * 1000)}, "war-and-peace.txt.gz"),
        [gzip.compress(b"\xff\xfe\x00")],
    ),
}
#: Whose whole example is itself refused, being a toy.
TOYS = ("text", "text.gz")


def damages(content, wrong):
    yield "empty", b""
    yield "html", HTML
    yield "half", content[: len(content) // 2 - 1]
    yield "head", content[:3]
    yield "gzip of garbage", gzip.compress(RNG.bytes(500))
    yield "garbage after gzip's head", b"\x1f\x8b\x08" + RNG.bytes(500)
    yield "zip", npz(np.arange(3))
    for number, one in enumerate(wrong):
        yield f"wrong {number}", one


CASES = [
    pytest.param(name, content, id=f"{name}, {kind}")
    for name, (_, (files, damaged), wrong) in SETS.items()
    for kind, content in damages(files[damaged], wrong)
    if not (kind in ("half", "head") and name in TOYS)
]


def place(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", [name for name in SETS if name not in TOYS])
def test_whole_files_are_read(name, tmp_path):
    reader, (files, _), _ = SETS[name]
    place(tmp_path, files)
    reader(tmp_path)


@pytest.mark.parametrize(("name", "content"), CASES)
def test_a_wrong_file_is_named_in_one_sentence(name, content, tmp_path):
    reader, (files, damaged), _ = SETS[name]
    place(tmp_path, {**files, damaged: content})
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is looked at below
        reader(tmp_path)
    text = describe(caught.value)
    assert str(tmp_path) in text, text
    assert "\n" not in text
    assert ";" in text or "expected" in text, text  # what to do, or what is accepted
    assert len(text) < 500


@pytest.fixture
def alphabet():
    return {f"A/character01/0001_{n:02d}.png": DRAWING for n in range(1, 3)}


def zipped(members, top="images_background/"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(top + name, content)
    return file.getvalue()


def omniglot(folder):
    return load_omniglot(folder, split="train", complete=False, cache=False)


@pytest.mark.parametrize(
    "content", [b"", HTML, gzip.compress(HTML), b"PK\x03\x04" + RNG.bytes(99)], ids=range(4)
)
def test_a_wrong_omniglot_zip(content, tmp_path):
    place(tmp_path / "omniglot-py", {"images_background.zip": content})
    with pytest.raises(ValueError, match=r"images_background\.zip: .*expected images_background"):
        omniglot(tmp_path)


@pytest.mark.parametrize(
    "picture", [b"", HTML, DRAWING[:60], png(np.zeros((9, 9), np.uint8))], ids=range(4)
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_drawing(picture, packed, tmp_path, alphabet):
    alphabet["A/character01/0001_02.png"] = picture
    if packed:
        place(tmp_path / "omniglot-py", {"images_background.zip": zipped(alphabet)})
    else:
        with zipfile.ZipFile(io.BytesIO(zipped(alphabet))) as archive:
            archive.extractall(tmp_path / "omniglot-py")
    with pytest.raises(ValueError, match=r"0001_02\.png.*expected"):
        omniglot(tmp_path)


@pytest.mark.parametrize("content", [b"", HTML, gzip.compress(HTML), RNG.bytes(99)], ids=range(4))
@pytest.mark.parametrize("archive", ["cifar-10-python.tar.gz", "cifar10-jpeg.tar.xz"])
def test_a_wrong_archive(content, archive, tmp_path):
    place(tmp_path / "source", {archive: content})
    with pytest.raises(ValueError, match=rf"{archive}: not a readable archive; fetch it again"):
        get("cifar10", tmp_path / "data", tmp_path / "source")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_an_archive_of_other_files(tmp_path):
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source/cifar10-jpeg.tar.xz", "w:xz") as tar:
        (tmp_path / "x.txt").write_text("x")
        tar.add(tmp_path / "x.txt", "x.txt")
    with pytest.raises(ValueError, match=r"cifar10-jpeg\.tar\.xz: .*archive"):
        get("cifar10", tmp_path / "data", tmp_path / "source")
    shutil.rmtree(tmp_path / "source")

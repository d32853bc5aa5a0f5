"""Image sets by name: published files are checked, damaged ones named, odd ones readable."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from trainrig.data import catalogue, published_files
from trainrig.data.catalogue import get_data_set
from trainrig.data.image_sets import load_image_set, small_sets
from trainrig.data.locations import data_root
from trainrig.data.published_files import FileFacts, check_files
from trainrig.data.shapes import N_CLASSES, draw_shapes

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture
def cifar_root(tmp_path):
    """A folder in the layout of the original archive, with 12 images a batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        pixels = rng.integers(0, 256, (12, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": [i % 10 for i in range(12)], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path


@pytest.fixture
def published(cifar_root, monkeypatch):
    """Declares the toy files to be the published ones."""
    folder = cifar_root / "cifar-10-batches-py"
    facts = {
        name: FileFacts(
            (folder / name).stat().st_size, hashlib.sha256((folder / name).read_bytes()).hexdigest()
        )
        for name in NAMES
    }
    declare_copies(monkeypatch, {"original": published_files.CIFAR10_ORIGINAL, "JPEG": facts})
    return folder


def declare_copies(monkeypatch, copies):
    changed = dataclasses.replace(get_data_set("cifar10"), copies=copies)
    others = [one for one in catalogue.DATA_SETS if one.name != "cifar10"]
    monkeypatch.setattr(catalogue, "DATA_SETS", (changed, *others))


def test_cifar10_is_read_and_its_copy_named(cifar_root, published):
    images = load_image_set("cifar10", cifar_root)
    assert images.train_images.shape == (60, 3, 32, 32)
    assert images.test_labels.tolist() == [i % 10 for i in range(12)]
    assert images.source == "cifar10 (JPEG copy)"
    assert images.std == (0.2023, 0.1994, 0.2010)
    assert len(images.describe()["content_sha256"]) == 64


def test_missing_batch_is_named_with_size_and_digest(cifar_root, published):
    expected = hashlib.sha256((published / "data_batch_3").read_bytes()).hexdigest()
    (published / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match=f"data_batch_3: missing.*{expected}"):
        load_image_set("cifar10", cifar_root)


def test_truncated_batch_is_named_with_both_sizes(cifar_root, published):
    content = (published / "data_batch_2").read_bytes()
    (published / "data_batch_2").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=rf"data_batch_2: {len(content) - 100:,} bytes; expected"):
        load_image_set("cifar10", cifar_root)


def test_tampered_batch_is_named_with_both_digests(cifar_root, published):
    content = bytearray((published / "test_batch").read_bytes())
    content[-50] ^= 1
    (published / "test_batch").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=rf"test_batch: SHA256 {digest}; expected .* SHA256"):
        load_image_set("cifar10", cifar_root)


def test_another_copy_needs_the_check_off(cifar_root):
    with pytest.raises(ValueError, match="check_files: false"):
        load_image_set("cifar10", cifar_root)
    assert load_image_set("cifar10", cifar_root, check=False).source == "cifar10 (unchecked copy)"


def test_pickle_that_would_run_code_is_refused(cifar_root, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "made"), "w")

    (cifar_root / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps({"data": Evil()}))
    with pytest.raises(ValueError, match="data_batch_1: not a readable data pickle"):
        load_image_set("cifar10", cifar_root, check=False)
    assert not (tmp_path / "made").exists()


def test_cifar100_takes_the_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        pixels = np.zeros((4, 3072), np.uint8)
        batch = {"data": pixels, "fine_labels": [0, 99, 5, 7], "coarse_labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(batch))
    images = load_image_set("cifar100", tmp_path, check=False)
    assert (images.n_classes, images.train_labels.tolist()) == (100, [0, 99, 5, 7])


def write_idx(path, array):
    magic = {3: 2051, 1: 2049}[array.ndim]
    header = b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape))
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_idx_sets_are_padded_to_32_pixels(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", np.arange(6, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected .* bytes, SHA256"):
        load_image_set(name, tmp_path)
    images = load_image_set(name, tmp_path, check=False)
    assert images.train_images.shape == (6, 1, 32, 32)
    assert torch.equal(images.train_images[:, 0, 2:-2, 2:-2], torch.from_numpy(pixels))
    assert images.train_images.sum() == pixels.sum()
    assert images.flip == (name == "fashion_mnist")


def test_absent_set_says_where_it_was_looked_for(tmp_path):
    for name, one in small_sets().items():
        if not one.drawn:
            with pytest.raises(FileNotFoundError, match=f"trainrig data get {name}"):
                load_image_set(name, tmp_path)


def test_archive_cannot_write_outside_its_folder(tmp_path):
    archive = tmp_path / "root/cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../evil")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
        tar.addfile(tarfile.TarInfo("/evil"))
    with pytest.raises(FileNotFoundError):
        load_image_set("cifar10", archive.parent, download=True)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "root/evil").exists()


def test_the_default_folder_gives_way_to_the_environment_only_where_it_is_absent(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert data_root("./data") == Path("data")
    monkeypatch.setenv("TRAINRIG_DATA_DIR", str(tmp_path / "elsewhere"))
    assert data_root("./data") == data_root() == tmp_path / "elsewhere"
    assert data_root("other") == Path("other")
    (tmp_path / "data").mkdir()
    assert data_root("./data") == Path("./data")


def test_published_tables_are_complete():
    for table in (published_files.CIFAR10_ORIGINAL, published_files.CIFAR10_JPEG):
        assert list(table) == NAMES
        assert {facts.algorithm for facts in table.values()} <= {"md5", "sha256"}


def test_expected_copy_is_the_one_that_most_sizes_agree_with(tmp_path):
    (tmp_path / "a").write_bytes(b"xyz")
    digest = hashlib.md5(b"xyz").hexdigest()
    copies = {"one": {"a": FileFacts(4, digest)}, "two": {"a": FileFacts(3, digest)}}
    assert check_files(tmp_path, copies) == "two"


def test_drawn_shapes_are_balanced_reproducible_and_distinct():
    images, labels = draw_shapes(60, seed=0)
    again, _ = draw_shapes(60, seed=0)
    other, _ = draw_shapes(60, seed=1)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert torch.bincount(labels).tolist() == [6] * N_CLASSES


@pytest.mark.data
def test_real_fashion_mnist_passes_its_checks(data_dir):
    images = load_image_set("fashion_mnist", data_dir)
    inner = images.train_images[:, :, 2:-2, 2:-2].double().div(255)
    assert inner.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert inner.std().item() == pytest.approx(0.3530, abs=5e-5)

from __future__ import annotations

import gzip
import shutil
import sys

import numpy as np
import pytest
import torch

from deepobs.pytorch import config, datasets
from deepobs.pytorch.datasets import image_ops
from deepobs.pytorch.datasets.generated import write_generated_data, write_text

SHAPES = {
    "mnist": (1, 28, 28),
    "fmnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "svhn": (3, 32, 32),
    "imagenet": (3, 224, 224),
}
FILES = sorted(SHAPES)


def first(loader):
    return next(iter(loader))


@pytest.mark.parametrize("name", FILES)
def test_image_batches(name):
    data = getattr(datasets, name)(2)
    for phase, loader in data.loaders.items():
        x, y = first(loader)
        assert x.shape == (2, *SHAPES[name]), phase
        assert x.dtype is torch.float32
        assert y.shape == (2,)
        assert y.dtype is torch.int64
    assert data.valid is None


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_passes_depend_on_seed_and_number_alone(name):
    torch.manual_seed(3)
    one, two = (getattr(datasets, name)(8) for _ in range(2))
    torch.rand(100)
    passes = [[x for x, _ in one.train] for _ in range(2)]
    torch.rand(7)
    for batches in passes:
        for ours, theirs in zip(two.train, batches, strict=True):
            assert torch.equal(ours[0], theirs)
    assert torch.equal(passes[0][0], passes[1][0]) == (name == "mnist")  # the others augment
    later = list(one.train.batches(1, start=2))
    assert torch.equal(later[0][0], passes[1][2])


@pytest.mark.parametrize("mode", ["reference", "fixed"])
def test_the_order_is_repeated_in_reference_mode_only(mode):
    config.set_compat(mode)
    loader = datasets.quadratic(100).train
    assert torch.equal(first(loader)[0], first(loader)[0]) == (mode == "reference")


def test_the_test_set_is_in_file_order_and_drops_the_rest():
    data = datasets.mnist(5)
    assert len(data.test) == 32 // 5
    raw = data.read("test")
    labels = torch.cat([y for _, y in data.test])
    assert labels.tolist() == raw.labels[:30].tolist()
    np.testing.assert_array_equal(first(data.test)[0][0, 0], raw.images[0, 0] / np.float32(255))


def test_train_eval_is_a_fresh_augmented_pass_in_reference_mode():
    data = datasets.cifar10(8, train_eval_size=20)
    assert len(data.train_eval) == 2
    assert not torch.equal(first(data.train_eval)[0], first(data.train_eval)[0])


def test_train_eval_and_validation_are_fixed_and_disjoint_in_fixed_mode():
    config.set_compat("fixed")
    data = datasets.mnist(4, train_eval_size=8)
    assert data.valid is not None
    assert torch.equal(first(data.train_eval)[0], first(data.train_eval)[0])
    held_out = {x.numpy().tobytes() for batch, _ in data.valid for x in batch}
    trained = {x.numpy().tobytes() for batch, _ in data.train for x in batch}
    assert not held_out & trained


def test_cifar100_leaks_its_label_in_reference_mode_only():
    leaked = datasets.cifar100(4).read("test")
    config.set_compat("fixed")
    clean = datasets.cifar100(4).read("test")
    assert leaked.images[:, 0, 0, 0].tolist() == clean.labels.tolist()
    np.testing.assert_array_equal(
        leaked.images.reshape(len(clean.labels), -1)[:, 1:],
        clean.images.reshape(len(clean.labels), -1)[:, :-1],
    )


def test_svhn_is_cut_in_reference_mode(monkeypatch):
    # The package's name `svhn` is the class; the module is found where imports keep it.
    module = sys.modules["deepobs.pytorch.datasets.svhn"]
    monkeypatch.setattr(module, "REFERENCE_TRAIN_SIZE", 16)
    assert datasets.svhn(4).train.size == 16
    config.set_compat("fixed")
    assert datasets.svhn(4).train.size == 16  # 32, half of which validate


def test_text_rows_continue_from_batch_to_batch(tmp_path):
    r = np.random.RandomState(0)
    write_text(tmp_path / "tolstoi", 1000, r)
    config.set_data_dir(tmp_path)
    data = datasets.tolstoi(3)
    text = np.load(tmp_path / "tolstoi" / "train.npy")
    batches = list(data.train)
    assert len(batches) == (len(text) - 1) // 150
    rows = torch.cat([x for x, _ in batches], 1)
    assert rows.flatten().tolist() == text[: rows.numel()].tolist()
    targets = torch.cat([y for _, y in batches], 1)
    assert targets.flatten().tolist() == text[1 : rows.numel() + 1].tolist()
    assert len(data.train_eval) == len(data.train)


@pytest.mark.parametrize(("name", "sizes"), [("quadratic", (7, 7)), ("two_d", (78, 78))])
def test_generated_points(name, sizes):
    data = getattr(datasets, name)(128)
    assert (len(data.train), len(data.test)) == sizes
    if name == "two_d":
        assert float(first(data.test)[0].abs().sum()) == 0


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_batch_size_must_be_a_positive_integer(batch_size):
    with pytest.raises(ValueError, match="a positive integer is expected"):
        datasets.quadratic(batch_size)


def test_batch_larger_than_the_set():
    with pytest.raises(ValueError, match="batch_size 33 is larger than the train set of 32"):
        datasets.mnist(33)


@pytest.mark.parametrize("name", FILES)
def test_missing_data_are_named(tmp_path, name):
    config.set_data_dir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"{name}: no data found .*trainrig data get {name}"
    ):
        getattr(datasets, name)(2)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mnist/train-images-idx3-ubyte.gz", "mnist"),
        ("cifar-10/data_batch_3.bin", "cifar10"),
        ("cifar-100/test.bin", "cifar100"),
        ("svhn/data_batch_1.bin", "svhn"),
        ("tolstoi/train.npy", "tolstoi"),
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "wrong", "missing"])
def test_damaged_files_are_named(tmp_path, generated_dir, file, name, damage):
    folder = file.partition("/")[0]
    shutil.copytree(generated_dir / folder, tmp_path / folder)
    config.set_data_dir(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
        if name == "svhn":
            pytest.skip("SVHN takes the binary batches that there are")
    else:
        path.write_bytes(content[: len(content) // 2 - 7] if damage == "truncated" else b"nothing")
    with pytest.raises((ValueError, FileNotFoundError), match=path.name.partition(".")[0]):
        getattr(datasets, name)(2)


def test_plain_idx_and_torchvision_layout_are_read(tmp_path, generated_dir):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (generated_dir / "mnist").iterdir():
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    before = datasets.mnist(4).read("test").images
    config.set_data_dir(tmp_path)
    np.testing.assert_array_equal(datasets.mnist(4).read("test").images, before)


def test_pickled_cifar_is_read_and_foreign_pickles_are_refused(tmp_path, generated_dir):
    import pickle

    raw = datasets.cifar10(4).read("test")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": raw.images.reshape(len(raw.labels), -1), b"labels": raw.labels.tolist()}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))
    config.set_data_dir(tmp_path)
    np.testing.assert_array_equal(datasets.cifar10(4).read("test").images, raw.images)
    (folder / "test_batch").write_bytes(pickle.dumps(shutil.rmtree))
    with pytest.raises(ValueError, match="not a readable data pickle"):
        datasets.cifar10(4)


def test_a_changed_file_is_read_again(tmp_path):
    write_generated_data(tmp_path, examples=16, seed=1)
    config.set_data_dir(tmp_path)
    before = datasets.mnist(4).read("test").images.copy()
    write_generated_data(tmp_path, examples=24, seed=2)
    after = datasets.mnist(4).read("test").images
    assert len(before) == 16
    assert len(after) == 24


def saturation_by_hsv(pixels, factor):
    """Slow twin: through HSV, one pixel at a time."""
    import colorsys

    out = np.empty_like(pixels)
    for index in np.ndindex(pixels.shape[1:]):
        r, g, b = (float(c) / 255 for c in pixels[(slice(None), *index)])
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        out[(slice(None), *index)] = np.array(colorsys.hsv_to_rgb(h, min(s * factor, 1), v)) * 255
    return out


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation_equals_the_way_through_hsv(factor):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 6, 6)).astype(np.float64)
    pixels[:, 0, 0] = 0
    pixels[:, 0, 1] = 77
    ours = image_ops.adjust_saturation(torch.from_numpy(pixels)[None], torch.tensor([factor]))
    np.testing.assert_allclose(ours[0], saturation_by_hsv(pixels, factor), atol=1e-9)


def test_crops_are_windows_of_the_padded_image():
    images = torch.arange(1, 2 * 3 * 8 * 8 + 1).reshape(2, 3, 8, 8)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    generator = torch.Generator().manual_seed(0)
    windows = [padded[..., i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    for _ in range(10):
        crops = image_ops.random_crop(images, generator, flip=True)
        for n in range(2):
            assert any(
                torch.equal(crops[n], w[n]) or torch.equal(crops[n], w[n].flip(-1)) for w in windows
            )


def test_standardisation_of_a_constant_image_is_zero():
    assert float(image_ops.standardize(torch.full((1, 3, 4, 4), 9.0)).abs().max()) == 0


def test_abstract_data_set_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        datasets.DataSet(4)

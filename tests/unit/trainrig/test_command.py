"""``trainrig config diff``."""

from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from trainrig.command import main
from trainrig.data import cifar10_jpeg
from trainrig.data.catalogue import find
from trainrig.data.cifar10 import read_cifar10


@pytest.fixture
def runs(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).mkdir()
        config = {"optimizer": {"lr": lr}, "seed": 1} | ({"new": 3} if name == "b" else {})
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path / "a", tmp_path / "b"


def test_only_what_differs_is_listed(runs, capsys):
    assert main(["config", "diff", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["new: (absent) -> 3", "optimizer.lr: 0.1 -> 0.2"]
    assert main(["config", "diff", str(runs[0]), str(runs[0])]) == 0
    assert capsys.readouterr().out.endswith("equal configurations\n")


def test_a_folder_that_is_no_run_is_one_line(runs, tmp_path, capsys):
    assert main(["config", "diff", str(runs[0]), str(tmp_path)]) == 1
    assert "config.json: no such file" in capsys.readouterr().err


def test_a_mistyped_command_is_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["confg"])
    assert ended.value.code == 2


def test_data_commands_end_to_end(tmp_path, capsys):
    source, root = tmp_path / "source", tmp_path / "data"
    (source / "tolstoi").mkdir(parents=True)
    (source / "tolstoi/war-and-peace.txt").write_text("another edition")
    where = ["--data-dir", str(root)]
    assert main(["data", "list", *where]) == 0
    assert "tolstoi        missing  by hand   trainrig data get tolstoi" in capsys.readouterr().out
    assert main(["data", "get", "tolstoi", "--source", str(source), *where]) == 1
    assert "this edition has" in capsys.readouterr().err
    assert main(["data", "verify", *where]) == 1
    (root / "tolstoi").mkdir(parents=True)
    for name in ("train", "test"):
        np.save(root / f"tolstoi/{name}.npy", np.arange(5))
    assert main(["data", "verify", *where]) == 1
    assert "the characters hash to" in capsys.readouterr().err
    assert main(["data", "list", *where]) == 0
    assert "tolstoi        found " in capsys.readouterr().out


def pack(archive, files):
    """Write a tar archive of {name: content}."""
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, f"w:{archive.suffix[1:]}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_an_archive_in_a_folder_that_is_only_read_is_unpacked_in_the_cache(
    tmp_path, monkeypatch, capsys
):
    root, cache = tmp_path / "data", tmp_path / "cache"
    pack(root / "tolstoi/tolstoi-deepobs.tar.gz", {"tolstoi/train.npy": b"a", "test.npy": b"b"})
    before = sorted(root.rglob("*"))
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(cache))
    monkeypatch.setattr(os, "access", lambda path, mode: path != root)
    where = ["--data-dir", str(root)]
    assert main(["data", "get", "tolstoi", *where]) == 0
    assert f"in {cache}/data/tolstoi" in capsys.readouterr().out
    assert find("tolstoi", [root]) == cache / "data/tolstoi"
    assert (cache / "data/tolstoi/train.npy").read_bytes() == b"a"
    assert sorted(root.rglob("*")) == before
    assert main(["data", "get", "tolstoi", *where]) == 0
    assert "already in" in capsys.readouterr().out


def jpeg(label, number):
    """Return a file whose red is its label's and whose green is its number's."""
    opened = io.BytesIO()
    Image.new("RGB", (32, 32), (20 * label, 20 * number, 128)).save(opened, "JPEG", quality=95)
    return opened.getvalue()


def test_the_lossy_copy_of_cifar10_is_converted_where_it_is_asked_for(
    tmp_path, monkeypatch, capsys
):
    source, root = tmp_path / "source", tmp_path / "data"
    per_class = {"train": 5, "test": 1}
    monkeypatch.setattr(cifar10_jpeg, "PER_CLASS", per_class)
    files = {
        f"{split}/{name}/{number:04d}.jpg": jpeg(label, number)
        for split, count in per_class.items()
        for label, name in enumerate(cifar10_jpeg.CLASSES)
        for number in reversed(range(count))
    }
    pack(source / "cifar10-jpeg.tar.xz", files)
    command = ["data", "get", "cifar10", "--data-dir", str(root), "--source", str(source)]
    assert main(command) == 0
    assert "6 files of a lossy copy" in capsys.readouterr().out
    raw = read_cifar10(find("cifar10", [root]), "train")
    assert raw.labels.tolist() == [*range(10)] * 5
    colours = raw.images.mean((2, 3))  # (50, 3)
    expected = [(20 * label, 20 * number, 128) for number in range(5) for label in range(10)]
    assert abs(colours - np.array(expected)).max() < 3
    assert len(read_cifar10(find("cifar10", [root]), "test").labels) == 10

    del files["test/truck/0000.jpg"]
    pack(tmp_path / "less/cifar10-jpeg.tar.xz", files)
    again = ["--data-dir", str(tmp_path / "none"), "--source", str(tmp_path / "less")]
    assert main([*command[:3], *again]) == 1
    assert "9 test images; 10 are expected" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["docter"], "did you mean 'doctor'?"),
        (["data", "get", "mnst"], "did you mean 'mnist'?"),
        (["data", "get", "mnist", "--sorce", "x"], "did you mean '--source'?"),
        (["data", "get"], "required: NAME"),
    ],
)
def test_mistakes_name_what_was_meant(words, text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1

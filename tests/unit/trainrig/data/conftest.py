"""Small and real Omniglot copies that the data tests share."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from trainrig.data.image_bank import ImageBank
from trainrig.data.omniglot import load_omniglot


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep each test's cached tensors to itself, and progress bars quiet."""
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("TRAINRIG_DATA_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def bank():
    """Four classes of three random 5-px images, ids 0..3."""
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    return ImageBank(
        images=images,
        class_ids=torch.arange(4),
        source="test",
        synthetic=True,
        sha256="",
        order="as made",
        class_names=("a", "b", "c", "d"),
    )


@pytest.fixture(scope="session")
def one_bit_png():
    """Return a function: (pixels of 0 and 1) -> the bytes of a 1-bit PNG."""

    def encode(pixels: np.ndarray) -> bytes:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels.astype(bool)).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_zip():
    """Return a function: (path, {member name: bytes}) -> None, writing a zip in that order."""

    def write(path: Path, members: dict[str, bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return write


@pytest.fixture
def tiny_root(tmp_path, write_zip, one_bit_png):
    """A data root with two background characters and one evaluation character, 3 drawings each."""
    rng = np.random.default_rng(0)
    members = {
        "images_background": [("Beta", 2, 7), ("Alpha", 1, 1)],
        "images_evaluation": [("Gamma", 1, 965)],
    }
    root = tmp_path / "root"
    for part, characters in members.items():
        files = {
            f"{part}/{alphabet}/character{number:02d}/{file_id:04d}_{drawing:02d}.png": one_bit_png(
                rng.random((105, 105)) < 0.9
            )
            for alphabet, number, file_id in characters
            for drawing in (2, 3, 1)
        }
        files[f"__MACOSX/{part}/._junk"] = b"junk"
        write_zip(root / "omniglot-py" / f"{part}.zip", files)
    return root


@pytest.fixture(scope="session")
def real_subset(data_dir, tmp_path_factory, write_zip):
    """Every 16th character of the real Omniglot (61 + 41), as zips."""
    root = tmp_path_factory.mktemp("omniglot-subset")
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(data_dir / "omniglot-py" / f"{part}.zip") as archive:
            names = [n for n in archive.namelist() if n.endswith(".png")]
            files = {n: archive.read(n) for n in names if int(n.split("/")[-1][:4]) % 16 == 1}
        write_zip(root / "omniglot-py" / f"{part}.zip", files)
    return root


@pytest.fixture(scope="session")
def real_subset_bank(real_subset):
    """The subset, read by our own reader."""
    return load_omniglot(real_subset, complete=False, cache=False)


@pytest.fixture(scope="session")
def omniglot(data_dir):
    """The complete real Omniglot, read by our own reader."""
    return load_omniglot(data_dir, cache=False)


@pytest.fixture(scope="session")
def unpack():
    """Return a function: root of zips -> copy of it with the zips unpacked."""

    def unpacked(root: Path, target: Path) -> Path:
        for part in sorted((root / "omniglot-py").glob("*.zip")):
            with zipfile.ZipFile(part) as archive:
                archive.extractall(target / "omniglot-py")
        return target

    return unpacked

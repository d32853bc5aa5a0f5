"""``make figures``: archived figures come again from the data beside them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image


def coarse(path):
    """Brightness in blocks of 8 pixels: alike for all versions of the fonts and the library."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").reduce(8), dtype=float)


@pytest.fixture
def archive(repo_root, tmp_path):
    """Return a function that copies an archive's data, and no picture."""

    def copy(name):
        source = repo_root / "runs" / name
        target = tmp_path / name
        target.mkdir(parents=True)
        for pattern in ("*.csv", "*.json", "*.npz"):
            for path in source.glob(pattern):
                shutil.copy(path, target)
        return source, target

    return copy


@pytest.mark.parametrize(
    "name",
    [
        "figure3a_torch/archive",
        "optimizer_quality/archive",
        "deepobs/archive",
        "ptycho/archive/golden_hybrid",
        "published/archive/quick_omniglot",
        pytest.param("ptycho/archive/siemens_star", marks=pytest.mark.slow),
        pytest.param("torch_adamw_sweep/archive", marks=pytest.mark.slow),
        pytest.param("torch_adamw_sweep/archive/omniglot", marks=pytest.mark.slow),
    ],
)
def test_an_archive_is_drawn_from_its_tables(name, archive, call_script):
    source, target = archive(name)
    ended = call_script("make_figures", [target])
    assert ended.code == 0, ended.err
    drawn = sorted(target.glob("*.png"))
    assert drawn
    for path in drawn:
        assert str(path) in ended.out
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        one, other = (coarse(place / path.name) for place in (target, source))
        assert one.shape == other.shape
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97, path.name
    assert {path.name for path in source.glob("*.png")} == {path.name for path in drawn}


def test_every_archived_picture_has_its_data(repo_root):
    with_pictures = {path.parent for path in (repo_root / "runs").glob("*/archive/**/*.png")}
    assert with_pictures
    for folder in with_pictures:
        assert [*folder.glob("*.csv"), *folder.glob("*.npz")], folder


def test_a_picture_without_a_table_is_named_and_kept(tmp_path, call_script):
    (tmp_path / "picture.png").write_bytes(b"kept")
    ended = call_script("make_figures", [tmp_path])
    assert ended.out == f"{tmp_path / 'picture.png'}: has no table here; left as it is\n"
    assert (tmp_path / "picture.png").read_bytes() == b"kept"


def test_a_folder_that_is_not_there(tmp_path, call_script):
    ended = call_script("make_figures", [tmp_path / "absent"])
    assert ended.code == 1
    assert ended.error_lines == [
        f"error: {tmp_path / 'absent'}: no such folder; give one that holds tables"
    ]

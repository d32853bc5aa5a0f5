"""Our own reader: ids, order, caching, and one clear sentence for every kind of damage."""

from __future__ import annotations

import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from trainrig.data import load_images
from trainrig.data.glyphs import load_glyphs
from trainrig.data.omniglot import (
    PIXELS_SHA256,
    full_range,
    in_record_order,
    is_present,
    load_omniglot,
)
from trainrig.data.omniglot_files import PARTS

BACKGROUND = "omniglot-py/images_background.zip"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_ids_are_file_numbers_less_one_and_drawings_ascend(tiny_root):
    from PIL import Image

    bank = load_omniglot(tiny_root, complete=False)
    assert bank.images.shape == (3, 3, 105, 105)
    assert bank.class_ids.tolist() == [0, 6, 964]
    assert bank.class_names == ("Alpha_0", "Beta_1", "Gamma_0")
    with zipfile.ZipFile(tiny_root / BACKGROUND) as archive:
        for drawing in (1, 2, 3):
            name = f"images_background/Beta/character02/0007_{drawing:02d}.png"
            with archive.open(name) as file, Image.open(file) as picture:
                assert picture.mode == "1"
                expected = np.asarray(picture).astype(np.uint8) * 255
            np.testing.assert_array_equal(bank.images[1, drawing - 1], expected)
    assert not bank.synthetic
    assert bank.source == "files"


def test_splits_can_be_read_alone(tiny_root):
    (tiny_root / "omniglot-py/images_evaluation.zip").unlink()
    assert load_omniglot(tiny_root, split="train", complete=False).class_ids.tolist() == [0, 6]
    with pytest.raises(FileNotFoundError, match=r"images_evaluation\.zip"):
        load_omniglot(tiny_root, split="test", complete=False)


@pytest.mark.parametrize("nested", [True, False])
def test_unpacked_folders_are_read_alike(tiny_root, tmp_path, unpack, nested):
    unpacked = unpack(tiny_root, tmp_path / "unpacked")
    root = unpacked if nested else unpacked / "omniglot-py"
    zipped, folder = load_omniglot(tiny_root, complete=False), load_omniglot(root, complete=False)
    assert torch.equal(zipped.images, folder.images)
    assert zipped.class_names == folder.class_names
    assert zipped.sha256 == folder.sha256


def test_cache_is_used_and_follows_the_content(tiny_root, tmp_path, unpack, own_cache):
    load_omniglot(tiny_root, complete=False)
    assert len(list(own_cache.glob("*.pt"))) == 1
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_root, moved)
    load_omniglot(moved, complete=False)  # the same bytes elsewhere
    assert len(list(own_cache.glob("*.pt"))) == 1
    unpacked = unpack(tiny_root, tmp_path / "unpacked")
    load_omniglot(unpacked, complete=False)
    png = unpacked / "omniglot-py/images_background/Alpha/character01/0001_01.png"
    png.write_bytes(png.with_name("0001_02.png").read_bytes())
    os.utime(png, ns=(1, 1))
    changed = load_omniglot(unpacked, complete=False)
    assert torch.equal(changed.images[0, 0], changed.images[0, 1])


def test_one_bit_pictures_left_as_0_and_1_are_scaled():
    np.testing.assert_array_equal(full_range(np.array([0, 1], np.uint8)), [0, 255])
    np.testing.assert_array_equal(full_range(np.array([0, 7], np.uint8)), [0, 7])


def test_record_order_reorders_exemplars_and_classes(tiny_root):
    plain = load_omniglot(tiny_root, complete=False)
    bank = load_omniglot(tiny_root, complete=False, order="tfds")
    assert bank.order.startswith("TFDS record order")
    assert sorted(bank.dictionary_order.tolist()) == [0, 1, 2]
    assert bank.dictionary_order[-1] == 2  # the evaluation class comes last
    for row in range(3):
        before = sorted(image.numpy().tobytes() for image in plain.images[row])
        assert before == sorted(image.numpy().tobytes() for image in bank.images[row])
    with pytest.raises(ValueError, match="accepted is 'drawing number, ascending'"):
        in_record_order(bank)


def test_absent_data_name_the_path_and_the_ways_out(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_omniglot(tmp_path)
    text = str(error.value)
    assert text.startswith(str(tmp_path / BACKGROUND))
    for hint in ("--download", "--source synthetic", "--preset quick"):
        assert hint in text
    assert "\n" not in text


def test_truncated_zip_is_named(tiny_root):
    path = tiny_root / BACKGROUND
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(
        ValueError, match=r"not a readable zip of 700 bytes.*964 characters"
    ) as error:
        load_omniglot(tiny_root, complete=False)
    assert str(path) in str(error.value)


def test_corrupt_member_is_named(tiny_root):
    path = tiny_root / BACKGROUND
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 40
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"member 'images_background/Beta.*not a readable PNG"):
        load_omniglot(tiny_root, complete=False)


@pytest.mark.parametrize("broken", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_corrupt_png_is_named(tiny_root, tmp_path, unpack, write_zip, broken):
    path = tiny_root / BACKGROUND
    name = "images_background/Alpha/character01/0001_02.png"
    write_zip(path, members(path) | {name: broken})
    with pytest.raises(ValueError, match=rf"{name}'?: not a readable PNG .*expected images_back"):
        load_omniglot(tiny_root, complete=False)
    unpacked = unpack(tiny_root, tmp_path / "unpacked")
    with pytest.raises(ValueError, match=rf"{name}: not a readable PNG"):
        load_omniglot(unpacked, complete=False)


def test_truncated_png_is_named(tiny_root, write_zip):
    path = tiny_root / BACKGROUND
    files = members(path)
    name = "images_background/Alpha/character01/0001_02.png"
    write_zip(path, files | {name: files[name][:200]})
    with pytest.raises(ValueError, match=r"0001_02\.png'?: not a readable PNG"):
        load_omniglot(tiny_root, complete=False)


def test_wrong_picture_size_is_named(tiny_root, write_zip, one_bit_png):
    path = tiny_root / BACKGROUND
    name = "images_background/Alpha/character01/0001_02.png"
    write_zip(path, members(path) | {name: one_bit_png(np.ones((105, 104)))})
    with pytest.raises(ValueError, match=r"0001_02\.png'?: the picture is 104 x 105 px"):
        load_omniglot(tiny_root, complete=False)


@pytest.mark.parametrize(
    "evil", ["../../evil.png", "/tmp/evil.png", "images_background/../../e.png", "C:\\evil.png"]
)
@pytest.mark.parametrize("source", ["files", "torchvision"])
def test_paths_that_leave_the_archive_are_refused(tiny_root, write_zip, evil, source):
    path = tiny_root / BACKGROUND
    write_zip(path, members(path) | {evil: b"x"})
    with pytest.raises(ValueError, match="points outside the archive"):
        load_omniglot(tiny_root, source=source, complete=False)


def test_incomplete_data_are_counted(tiny_root):
    with pytest.raises(
        ValueError,
        match=r"images_background\.zip: holds 2 characters, 6 drawings, and 3 of character 0001; "
        "expected images_background with 964 characters x 20 drawings",
    ):
        load_omniglot(tiny_root)


def test_unequal_classes_are_refused(tiny_root, write_zip):
    path = tiny_root / BACKGROUND
    files = members(path)
    del files["images_background/Alpha/character01/0001_02.png"]
    write_zip(path, files)
    with pytest.raises(ValueError, match="character 0001 has 2 drawings and 0007 has 3"):
        load_omniglot(tiny_root, complete=False)


def test_exchanged_parts_are_refused(tiny_root):
    folder = tiny_root / "omniglot-py"
    names = [f"{part}.zip" for part in PARTS.values()]
    (folder / names[0]).rename(folder / "x")
    (folder / names[1]).rename(folder / names[0])
    with pytest.raises(ValueError, match="character 0965, which belongs to the other part"):
        load_omniglot(tiny_root, split="train", complete=False)


def test_empty_zip_and_doubled_drawing_are_refused(tiny_root, write_zip):
    path = tiny_root / BACKGROUND
    files = members(path)
    copy = files["images_background/Alpha/character01/0001_02.png"]
    write_zip(path, files | {"images_background/Zeta/character01/0001_02.png": copy})
    with pytest.raises(ValueError, match="drawing 0001_02 occurs 2 times"):
        load_omniglot(tiny_root, complete=False)
    write_zip(path, {"readme.txt": b""})
    with pytest.raises(ValueError, match="holds no Omniglot drawings"):
        load_omniglot(tiny_root, complete=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"source": "file"}, "source: 'file' is unknown; did you mean 'files'"),
        ({"split": "training"}, "split: 'training' is unknown.*accepted are all, train, test"),
        ({"order": "x"}, "order: 'x' is unknown"),
    ],
)
def test_unknown_words_are_refused_before_any_reading(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        load_omniglot(tmp_path, **option)


def test_auto_prefers_omniglot_and_falls_back_only_when_allowed(tiny_root, tmp_path, monkeypatch):
    assert load_images("auto", tiny_root, complete=False).source == "files"
    with pytest.raises(FileNotFoundError):
        load_images("auto", tmp_path / "nothing")
    small = load_glyphs(3, 2)
    monkeypatch.setattr("trainrig.data.glyphs.load_glyphs", lambda cache: small)
    assert load_images("synthetic") is small
    assert load_images("auto", tmp_path / "nothing", allow_synthetic=True) is small
    monkeypatch.setenv("TRAINRIG_DATA_DIR", str(tiny_root))
    assert is_present()
    assert load_images(complete=False).source == "files"


def test_auto_does_not_hide_damage(tiny_root):
    (tiny_root / BACKGROUND).write_bytes(b"PK")
    with pytest.raises(ValueError, match="not a readable zip"):
        load_images("auto", tiny_root, allow_synthetic=True)


def test_unknown_source_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="'omniglott' is unknown; did you mean 'omniglot'"):
        load_images("omniglott", tmp_path)


@pytest.mark.data
def test_real_omniglot_is_complete_and_pinned(omniglot):
    assert omniglot.images.shape == (1623, 20, 105, 105)
    assert omniglot.class_ids.tolist() == list(range(1623))
    assert omniglot.sha256 == PIXELS_SHA256["all"]
    assert omniglot.class_names[964] == "Angelic_0"
    # The original's one duplicate: character 0192, drawings 3 and 19.
    assert torch.equal(omniglot.images[191, 2], omniglot.images[191, 18])


@pytest.mark.data
def test_real_pixels_are_0_and_255_with_white_background(omniglot):
    assert torch.unique(omniglot.images[::50]).tolist() == [0, 255]
    ink = (omniglot.images == 0).float().mean().item()
    assert 0.05 < ink < 0.10


@pytest.mark.data
def test_altered_pixels_are_refused(data_dir, tmp_path, write_zip):
    part = "images_evaluation.zip"
    files = members(data_dir / "omniglot-py" / part)
    folder = "images_evaluation/Angelic/character01"
    files[f"{folder}/0965_01.png"] = files[f"{folder}/0965_02.png"]
    write_zip(tmp_path / "omniglot-py" / part, files)
    with pytest.raises(ValueError, match="the decoded pixels of split 'test' hash to"):
        load_omniglot(tmp_path, split="test", cache=False)

"""The bank's checks and its transforms, against slow twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from trainrig.data.bank_transforms import (
    augment,
    keep_classes,
    prepare_views,
    select_exemplars,
    view_table,
)
from trainrig.data.image_bank import downsample_images, hash_pixels, to_float


def test_bank_refuses_wrong_tensors(bank):
    with pytest.raises(ValueError, match=r"float32 .* give uint8 \(K, N, H, W\)"):
        replace(bank, images=bank.images.float())
    with pytest.raises(ValueError, match="strictly ascending"):
        replace(bank, class_ids=torch.tensor([0, 2, 1, 3]))
    with pytest.raises(ValueError, match="strictly ascending"):
        replace(bank, class_ids=torch.arange(3))
    with pytest.raises(ValueError, match="2 class names for 4 classes"):
        replace(bank, class_names=("a", "b"))


def test_background_is_the_float32_sum_of_the_grey_weights():
    weights = np.float32([0.2989, 0.5870, 0.1140])
    background = to_float(torch.tensor([0, 255], dtype=torch.uint8)).numpy()
    assert background[0] == 0.0
    assert background[1] == (weights[0] + weights[1]) + weights[2]
    assert background[1] == pytest.approx(0.9999, abs=1e-7)


def test_grey_levels_follow_the_reference_conversion():
    levels = np.arange(256, dtype=np.uint8)
    scaled = levels.astype(np.float32) * np.float32(1 / 255)
    red, green, blue = np.float32([0.2989, 0.5870, 0.1140])
    expected = (scaled * red + scaled * green) + scaled * blue
    np.testing.assert_array_equal(to_float(torch.from_numpy(levels)).numpy(), expected)


def bilinear_by_hand(image: np.ndarray, side: int = 28) -> np.ndarray:
    """Half-pixel bilinear sampling of one float image, pixel by pixel, in float64."""
    height, width = image.shape
    result = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y = max((i + 0.5) * height / side - 0.5, 0)
            x = max((j + 0.5) * width / side - 0.5, 0)
            for row, dy in ((int(y), 1 - y % 1), (min(int(y) + 1, height - 1), y % 1)):
                for column, dx in ((int(x), 1 - x % 1), (min(int(x) + 1, width - 1), x % 1)):
                    result[i, j] += dy * dx * image[row, column]
    return result


@pytest.mark.parametrize("size", [28, 29, 64, 105])
def test_downsample_equals_the_slow_twin_and_torch(size):
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    small = downsample_images(images)
    floats = to_float(images)
    assert small.shape == (2, 3, 28, 28)
    assert torch.equal(small, downsample_images(floats))
    # The bound is two float32 roundings of values up to 1.
    by_hand = np.stack([bilinear_by_hand(image.double().numpy()) for image in floats[0]])
    assert_close(small[0], torch.from_numpy(by_hand).float(), atol=2.5e-7, rtol=0)
    by_torch = functional.interpolate(
        floats, size=(28, 28), mode="bilinear", align_corners=False, antialias=False
    )
    # torch computes sampling positions in float32: exact at 28 and 105 px, else off by 1e-6 px.
    assert_close(small, by_torch, atol=2.5e-7 if size in (28, 105) else 1e-5, rtol=0)


def test_antialiased_downsampling_is_that_of_torch():
    images = torch.randint(0, 256, (2, 3, 105, 105), dtype=torch.uint8)
    expected = functional.interpolate(
        to_float(images), size=(28, 28), mode="bilinear", antialias=True
    )
    assert torch.equal(downsample_images(images, antialias=True), expected)


def test_downsample_refuses_small_images(bank):
    with pytest.raises(ValueError, match="5 x 5 px; at least 28 px"):
        bank.float_images(downsample=True)


def test_float_images_add_a_channel_and_leave_28_px_alone(bank):
    assert torch.equal(bank.float_images()[:, :, 0], to_float(bank.images))
    glyph_sized = replace(bank, images=torch.zeros(4, 3, 28, 28, dtype=torch.uint8))
    assert glyph_sized.float_images(downsample=True).shape == (4, 3, 1, 28, 28)
    large = replace(bank, images=torch.randint(0, 256, (4, 3, 105, 105), dtype=torch.uint8))
    small = large.float_images(downsample=True)
    assert torch.equal(small[:, :, 0], downsample_images(large.images))


def test_float_images_cover_more_classes_than_one_piece(bank):
    images = torch.randint(0, 256, (37, 2, 5, 5), dtype=torch.uint8)
    many = replace(bank, images=images, class_ids=torch.arange(37), class_names=())
    assert torch.equal(many.float_images()[:, :, 0], to_float(images))


def test_select_single_keeps_the_first_exemplar(bank):
    single = select_exemplars(bank, "single")
    assert torch.equal(single.images, bank.images[:, :1])
    assert torch.equal(single.class_ids, bank.class_ids)
    assert single.exemplars == "single"
    assert select_exemplars(bank, "all") is bank


def test_select_separated_numbers_class_times_n_plus_position(bank):
    shifted = replace(bank, class_ids=torch.tensor([2, 3, 5, 9]))
    separated = select_exemplars(shifted, "separated")
    assert separated.images.shape == (12, 1, 5, 5)
    for row, class_id in enumerate([2, 3, 5, 9]):
        for position in range(3):
            new = separated.class_ids.tolist().index(3 * class_id + position)
            assert torch.equal(separated.images[new, 0], bank.images[row, position])
    assert separated.class_names[4] == "b_1"


def test_select_refuses_unknown_words_and_second_selection(bank):
    with pytest.raises(ValueError, match="'some' is unknown"):
        select_exemplars(bank, "some")
    with pytest.raises(ValueError, match="reduced to 'single' before"):
        select_exemplars(select_exemplars(bank, "single"), "separated")


def test_keep_classes(bank):
    kept = keep_classes(bank, 2)
    assert torch.equal(kept.images, bank.images[:2])
    assert kept.class_names == ("a", "b")
    for n in (0, 5):
        with pytest.raises(ValueError, match="give a number of classes that it holds"):
            keep_classes(bank, n)
    with pytest.raises(ValueError, match=r"ids 1\.\.4"):
        keep_classes(replace(bank, class_ids=torch.arange(1, 5)), 2)


@pytest.mark.parametrize("dictionary_order", [None, torch.tensor([2, 0, 3, 1])])
def test_augment_equals_the_slow_twin(bank, dictionary_order):
    bank = replace(bank, dictionary_order=dictionary_order)
    augmented = augment(bank)
    rows = range(4) if dictionary_order is None else dictionary_order.tolist()
    new_id = 0
    for row in rows:
        for flip in (False, True):
            for turns in range(4):
                for exemplar in range(3):
                    image = bank.images[row, exemplar].numpy()
                    image = np.rot90(image[:, ::-1] if flip else image, turns)
                    np.testing.assert_array_equal(augmented.images[new_id, exemplar], image)
                assert augmented.class_names[new_id] == f"{'abcd'[row]}_flip{int(flip)}_rot{turns}"
                new_id += 1
    assert augmented.class_ids.tolist() == list(range(32))


def test_downsampling_and_turning_commute(bank):
    """Runs turn what was resized, the reference resizes what was turned: equal within rounding."""
    images = torch.randint(0, 256, (4, 3, 45, 45), dtype=torch.uint8)
    bank = replace(bank, images=images)
    ordered = prepare_views(bank)
    small = downsample_images(ordered.images).flatten(2)[:, :, view_table(28)].movedim(2, 1)
    turned = downsample_images(augment(bank).images).flatten(2)
    assert_close(small.flatten(0, 1), turned, rtol=0, atol=1e-6)


def test_augment_turns_counter_clockwise(bank):
    image = torch.zeros(5, 5, dtype=torch.uint8)
    image[0, 4] = 255  # top right goes to top left
    corner = replace(bank, images=image.expand(4, 3, 5, 5).contiguous())
    assert augment(corner).images[1, 0, 0, 0] == 255


@pytest.mark.parametrize("exemplars", ["single", "separated"])
def test_augment_refuses_single_images(bank, exemplars):
    with pytest.raises(ValueError, match="use exemplars 'all'"):
        augment(select_exemplars(bank, exemplars))


def test_transforms_are_recorded_and_change_nothing_in_place(bank):
    before = bank.images.clone()
    result = augment(keep_classes(bank, 2))
    assert result.transforms == ("keep=2", "augment")
    assert result.describe()["transforms"] == ["keep=2", "augment"]
    assert torch.equal(bank.images, before)
    result.images.zero_()
    assert torch.equal(bank.images, before)


def test_hash_is_that_of_the_bytes_in_row_major_order(bank):
    turned = bank.images.transpose(-1, -2)
    assert hash_pixels(turned) == hash_pixels(turned.contiguous())
    assert hash_pixels(turned) != hash_pixels(bank.images)

"""Splits: disjoint, complete, reproducible, and refused where they make no sense."""

from __future__ import annotations

import json

import pytest
import torch

from trainrig.data.splits import content_hash, save_split, split_indices


def test_split_is_a_reproducible_partition():
    train, val = split_indices(50_000, 0.9, seed=42)
    assert (len(train), len(val)) == (45_000, 5_000)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(50_000))
    assert torch.equal(train, split_indices(50_000, 0.9, seed=42)[0])
    assert not torch.equal(train, split_indices(50_000, 0.9, seed=43)[0])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fraction_outside_the_open_interval_is_refused(fraction):
    with pytest.raises(ValueError, match=r"not inside \(0, 1\)"):
        split_indices(100, fraction, 0)


def test_fraction_that_empties_a_part_is_refused():
    with pytest.raises(ValueError, match="empty part"):
        split_indices(3, 0.9, 0)


def test_hash_depends_on_pixels_labels_and_order():
    images, labels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), torch.tensor([0, 1])
    reference = content_hash(images, labels)
    assert content_hash(images.flip(0), labels) != reference
    assert content_hash(images, labels.flip(0)) != reference
    assert content_hash(images.clone(), labels.clone()) == reference


def test_saved_split_names_its_source(tmp_path):
    save_split(tmp_path / "s.json", torch.tensor([0, 2]), [1], source="drawn", sha256="ab")
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "source": "drawn",
        "content_sha256": "ab",
        "train_indices": [0, 2],
        "val_indices": [1],
    }

"""Both pipelines serve the same bits for any training window."""

from __future__ import annotations

import pytest
import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import get_cifar10_dataloaders


@pytest.mark.parametrize(
    ("crop_px", "crop_epochs", "sides"), [(32, None, (32, 32)), (24, 3, (24, 32))]
)
def test_both_pipelines_serve_the_same_training_windows(crop_px, crop_epochs, sides):
    pytest.importorskip("torchvision")
    common = dict(dataset="synthetic", train_items=40, batch_size=16)
    common |= dict(crop_px=crop_px, crop_epochs=crop_epochs)
    (ours, *_), (oracle, *_) = (
        get_cifar10_dataloaders(CifarConfig(**common, pipeline=name, num_workers=0))
        for name in ("resident", "torchvision")
    )
    for epoch, side in zip((3, 4), sides, strict=True):
        ours.set_epoch(epoch)
        oracle.set_epoch(epoch)
        for (x, y), (other_x, other_y) in zip(ours, oracle, strict=True):
            assert x.shape[1:] == (3, side, side)
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)


@pytest.mark.parametrize("crop_px", [7, 33])
def test_a_window_outside_the_image_is_refused(crop_px):
    with pytest.raises(ValueError, match=f"crop_px is {crop_px}; 8 to 32 is accepted"):
        CifarConfig(crop_px=crop_px)

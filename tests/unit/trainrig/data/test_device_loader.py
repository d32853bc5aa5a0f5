"""The fast batches must equal torchvision's, bit for bit, for the same offsets."""

from __future__ import annotations

import pytest
import torch

from trainrig.data.device_loader import (
    Augmentation,
    EpochPlan,
    ImageBatches,
    Layout,
    crop_and_flip,
    crop_and_flip_numpy,
    plan_epoch,
)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(20) % 10


def loader(pictures, augmentation=None, batch_size=8, **options):
    layout = Layout(batch_size=batch_size, mean=MEAN, std=STD, **options)
    return ImageBatches(*pictures, torch.arange(20), layout, augmentation)


@pytest.mark.parametrize(("channels_last", "side"), [(True, 32), (False, 32), (True, 24)])
def test_batches_equal_torchvision_transforms(pictures, channels_last, side, monkeypatch):
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image

    images, labels = pictures
    batches = loader(pictures, Augmentation(seed=3, crop_px=side), channels_last=channels_last)
    batches.set_epoch(5)
    plan = plan_epoch(20, 3, 5, n_offsets=41 - side, flip=True)
    position = 0
    for x, y in batches:
        for image, label in zip(x, y, strict=True):
            item = int(plan.order[position])
            offsets = int(plan.rows[position]), int(plan.columns[position])
            monkeypatch.setattr(
                transforms.RandomCrop, "get_params", lambda *_, o=offsets: (*o, side, side)
            )
            oracle = transforms.Compose(
                [
                    transforms.RandomCrop(side, padding=4),
                    transforms.RandomHorizontalFlip(p=float(plan.flips[position])),
                    transforms.ToTensor(),
                    transforms.Normalize(MEAN, STD),
                ]
            )
            picture = Image.fromarray(images[item].permute(1, 2, 0).numpy())
            assert torch.equal(image, oracle(picture))
            assert label == labels[item]
            position += 1
    assert position == 20
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert x.is_contiguous(memory_format=layout)


def test_row_copies_equal_the_windowed_crop(pictures):
    padded = torch.nn.functional.pad(pictures[0], (4,) * 4).permute(0, 2, 3, 1).contiguous()
    plan = plan_epoch(20, 0, 1, n_offsets=9, flip=True)
    expected = crop_and_flip(padded, plan, 32)
    assert torch.equal(crop_and_flip_numpy(padded, plan, 32), expected)
    corner = EpochPlan(*(torch.tensor([v]) for v in (0, 8, 8, False)))
    assert torch.equal(crop_and_flip(padded, corner, 32)[0], padded[0, 8:, 8:])


def test_order_is_a_pure_function_of_seed_and_epoch(pictures):
    def labels(seed, epoch):
        batches = loader(pictures, Augmentation(seed=seed))
        batches.set_epoch(epoch)
        return torch.cat([x.flatten(1)[:, :5] for x, _ in batches])

    assert torch.equal(labels(0, 1), labels(0, 1))
    assert not torch.equal(labels(0, 1), labels(0, 2))
    assert not torch.equal(labels(0, 1), labels(1, 1))


def test_plan_covers_every_item_offset_and_side():
    plan = plan_epoch(5000, 0, 1, n_offsets=9, flip=True)
    assert plan.order.sort().values.tolist() == list(range(5000))
    assert set(plan.rows.tolist()) == set(plan.columns.tolist()) == set(range(9))
    assert 0.45 < plan.flips.float().mean() < 0.55
    assert not plan_epoch(50, 0, 1, n_offsets=9, flip=False).flips.any()


def test_a_window_larger_than_the_padded_image_is_refused(pictures):
    with pytest.raises(ValueError, match="crop_px is 41; at most 40 is accepted"):
        next(iter(loader(pictures, Augmentation(seed=0, crop_px=41))))


def test_evaluation_batches_are_normalised_only(pictures):
    images, labels = pictures
    batches = list(loader(pictures))
    assert [len(y) for _, y in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([y for _, y in batches]), labels)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = images.float().div(255).sub(mean).div(std)
    assert torch.equal(torch.cat([x for x, _ in batches]), expected)

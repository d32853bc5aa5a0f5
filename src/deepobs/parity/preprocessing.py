"""Input pipelines against recorded raw records and processed images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs
from deepobs.pytorch.datasets import image_ops, two_d
from deepobs.pytorch.datasets.cifar100 import leak_label
from deepobs.pytorch.datasets.loaders import TextLoader
from trainrig.data.mnist import RawImages
from trainrig.parity import Report


def check_preprocessing(golden: Golden, stem: str, report: Report) -> None:
    """Compare test pipelines from raw records, adjustments at fixed factors, batch counts."""
    arrays, bound = golden.arrays(stem), golden.bound("preprocessing_abs")
    seen: set[str] = set()
    for name in ("cifar10", "cifar100", "svhn"):
        if f"{name}_raw3" in arrays:
            _check_records(name, arrays, report, bound)
            seen |= {f"{name}_raw3", f"{name}_test_x", f"{name}_test_y"}
    seen |= _check_adjustments(arrays, report, bound)
    for key in sorted(arrays.keys() - seen):
        report.unchecked(f"{stem}/{key}", "its raw input is not in the directory")
    _check_counts(golden.json(stem) or {}, report)


def _check_records(name: str, arrays: dict[str, np.ndarray], report: Report, bound: float) -> None:
    raw = arrays[f"{name}_raw3"]
    n_labels = raw.shape[1] - 3072
    labels, pixels = raw[:, n_labels - 1].astype(np.int64), raw[:, n_labels:]
    if name == "svhn":
        images = pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    else:
        images = pixels.reshape(-1, 3, 32, 32)
    if name == "cifar100":
        images = leak_label(RawImages(images, labels)).images
    ours = image_ops.standardize(torch.from_numpy(images.astype(np.float32)))
    ours = ours.permute(0, 2, 3, 1).numpy()
    case = f"preprocessing/{name}"
    report.check(case, "test images", max_abs(ours, arrays[f"{name}_test_x"]), bound)
    if f"{name}_test_y" in arrays:
        expected = arrays[f"{name}_test_y"][: len(labels)]
        report.equal(case, "test labels", bool((labels == expected).all()))


def _check_adjustments(arrays: dict[str, np.ndarray], report: Report, bound: float) -> set[str]:
    if "adj_in" not in arrays:
        return set()
    x = torch.from_numpy(arrays["adj_in"]).permute(2, 0, 1)[None]
    seen = {"adj_in"}
    for key, expected in arrays.items():
        kind, _, text = key.rpartition("_")
        if kind == "brightness":
            y = x + float(text)
        elif kind == "saturation":
            y = image_ops.adjust_saturation(x, torch.tensor([float(text)]))
        elif kind == "contrast":
            y = image_ops.adjust_contrast(x, torch.tensor([float(text)]))
        elif key == "std":
            y = image_ops.standardize(x)
        elif key == "pad36":
            # An 8x8 image in the zero border that random cropping starts from.
            y = torch.nn.functional.pad(x, (image_ops.PAD_PX,) * 4)
        else:
            continue
        ours = y[0].permute(1, 2, 0).numpy()
        # Colour values reach 255, so a bound meant for standardised images is taken relative.
        scale = max(float(np.abs(expected).max()), 1.0)
        report.check("preprocessing/adjust", key, max_abs(ours, expected) / scale, bound)
        seen.add(key)
    return seen


def _check_counts(record: dict[str, Any], report: Report) -> None:
    for name, counts in record.items():
        case = f"preprocessing/{name}"
        if name == "two_d":
            data = two_d(128)
            for phase in ("train", "test"):
                report.equal(case, f"{phase} batches", len(getattr(data, phase)) == counts[phase])
            zero = float(data.test.arrays[0].abs().max()) == counts.get("test_x0", 0.0)
            report.equal(case, "test noise is zero", zero)
        else:
            report.unchecked(case, f"batch counts {counts}: the size of the set is not recorded")


def chunk_text(characters: np.ndarray, batch_size: int, seq_length: int) -> TextLoader:
    """Return a loader over an array of characters."""
    return TextLoader("text", torch.from_numpy(characters), batch_size, seq_length)

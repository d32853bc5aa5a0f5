"""Input pipelines against recorded raw records and processed images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs
from deepobs.pytorch import datasets
from deepobs.pytorch.datasets import image_ops, image_set, two_d
from deepobs.pytorch.datasets.cifar100 import leak_label
from deepobs.pytorch.datasets.generated import generated_data
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
    seen |= _check_without_input(arrays, report, bound)
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
    standardized = image_ops.standardize(torch.from_numpy(images.astype(np.float32)))
    ours = standardized.permute(0, 2, 3, 1).numpy()
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


def _check_without_input(arrays: dict[str, np.ndarray], report: Report, bound: float) -> set[str]:
    """Check what recorded results alone tell, where the raw input is not in the directory."""
    seen: set[str] = set()
    for key, expected in arrays.items():
        case = "preprocessing/without input"
        if key in ("mnist_test_x", "fmnist_test_x"):
            raw = np.rint(expected.transpose(0, 3, 1, 2) * 255).astype(np.uint8)
            images = image_set.plain(
                (torch.from_numpy(raw), torch.zeros(len(raw))),
                torch.Generator(),
                colour=False,
                dtype=torch.float32,
            )[0]
            ours = images.permute(0, 2, 3, 1).numpy()
            report.check(case, f"{key} are bytes over 255", max_abs(ours, expected), bound)
        elif key in ("std_const", "std_low"):
            # Below the least deviation, standardising again must multiply by sqrt(n).
            x = torch.from_numpy(expected).permute(2, 0, 1)[None]
            again = image_ops.standardize(x)[0].permute(1, 2, 0).numpy() / np.sqrt(expected.size)
            report.check(
                case, f"{key} is below the least deviation", max_abs(again, expected), bound
            )
        elif key == "tolstoi_test_first_y":
            characters = arrays["tolstoi_test_first_x"]
            follows = bool((characters[:, 1:] == expected[:, :-1]).all())
            report.equal(case, "tolstoi: targets are one character later", follows)
            seen.add("tolstoi_test_first_x")
        else:
            continue
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
        elif isinstance(counts, dict):
            _check_set_counts(name, counts, report)
        elif name == "tolstoi_train_eval_batches":
            with generated_data(examples=64):
                text = datasets.tolstoi(5)
            ours = len(text.train_eval) == len(text.train)
            same = counts == record.get("tolstoi_train_batches")
            report.equal(case, "all training batches are evaluated", ours == same)
        else:
            report.unchecked(case, f"{counts} batches: the size of the set is not recorded")


def _check_set_counts(name: str, counts: dict[str, int], report: Report) -> None:
    """Check the counts that do not depend on the unrecorded size of the set."""
    case = f"preprocessing/{name}"
    for key, expected in counts.items():
        match = re.fullmatch(r"train_eval_batches_bs(\d+)_size(\d+)", key)
        if match is None or not hasattr(datasets, name):
            report.unchecked(case, f"{key} {expected}: the size of the set is not recorded")
            continue
        batch_size, size = map(int, match.groups())
        with generated_data(examples=2 * size):
            data = getattr(datasets, name)(batch_size, train_eval_size=size)
        report.equal(case, key, len(data.train_eval) == expected, str(len(data.train_eval)))

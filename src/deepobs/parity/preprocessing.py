"""Input pipelines against recorded raw records and processed images."""

from __future__ import annotations

import re

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs
from deepobs.pytorch import datasets
from deepobs.pytorch.datasets import image_ops, image_set, two_d
from deepobs.pytorch.datasets.cifar100 import leak_label
from deepobs.pytorch.datasets.generated import generated_data
from trainrig.data.mnist import RawImages
from trainrig.parity import Record, Report


def check_preprocessing(golden: Golden, stem: str, report: Report) -> None:
    """Compare test pipelines from raw records, adjustments at fixed factors, batch counts."""
    arrays, bound = golden.arrays(f"{stem}.npz"), golden.bound("preprocessing_abs")
    for name in ("cifar10", "cifar100", "svhn"):
        if f"{name}_raw3" in arrays:
            with report.attempt(f"{stem}/{name}"):
                _check_records(name, arrays, report, bound)
    _check_adjustments(arrays, report, bound)
    _check_without_input(arrays, report, bound)
    _check_counts(golden.json(f"{stem}.json"), report)


def _check_records(name: str, arrays: Record, report: Report, bound: float | None) -> None:
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
    with report.attempt(case):
        report.check(case, "test images", max_abs(ours, arrays[f"{name}_test_x"]), bound)
    with report.attempt(case):
        expected = arrays[f"{name}_test_y"]
        report.equal(case, "test labels", bool((labels == expected[: len(labels)]).all()))
        if len(expected) > len(labels):
            report.unchecked(case, f"{len(expected) - len(labels)} labels without a raw record")


def _check_adjustments(arrays: Record, report: Report, bound: float | None) -> None:
    if "adj_in" not in arrays:
        return
    x = torch.from_numpy(arrays["adj_in"]).permute(2, 0, 1)[None]
    for key in arrays:
        with report.attempt(f"preprocessing/{key}"):
            y = _adjusted(x, key)
            if y is None:
                continue
            expected, ours = arrays[key], y[0].permute(1, 2, 0).numpy()
            # Colour values reach 255, so a bound meant for standardised images is taken relative.
            scale = max(float(np.abs(expected).max()), 1.0)
            report.check("preprocessing/adjust", key, max_abs(ours, expected) / scale, bound)


def _adjusted(x: torch.Tensor, key: str) -> torch.Tensor | None:
    """Return what the adjustment that an array is named after makes of images; None for others."""
    kind, _, text = key.rpartition("_")
    if kind == "brightness":
        return x + float(text)
    if kind == "saturation":
        return image_ops.adjust_saturation(x, torch.tensor([float(text)]))
    if kind == "contrast":
        return image_ops.adjust_contrast(x, torch.tensor([float(text)]))
    if key == "std":
        return image_ops.standardize(x)
    if key == "pad36":
        # An 8x8 image in the zero border that random cropping starts from.
        return torch.nn.functional.pad(x, (image_ops.PAD_PX,) * 4)
    return None


def _check_without_input(arrays: Record, report: Report, bound: float | None) -> None:
    """Check what recorded results alone tell, where the raw input is not in the directory."""
    case = "preprocessing/without input"
    for key in ("mnist_test_x", "fmnist_test_x"):
        if key in arrays:
            with report.attempt(case):
                expected = arrays[key]
                deviation = max_abs(_from_bytes(expected), expected)
                report.check(case, f"{key} are bytes over 255", deviation, bound)
    for key in ("std_const", "std_low"):
        if key in arrays:
            with report.attempt(case):
                deviation = _off_least_deviation(arrays[key])
                report.check(case, f"{key} is below the least deviation", deviation, bound)
    if "tolstoi_test_first_y" in arrays:
        with report.attempt(case):
            characters, targets = arrays["tolstoi_test_first_x"], arrays["tolstoi_test_first_y"]
            follows = bool((characters[:, 1:] == targets[:, :-1]).all())
            report.equal(case, "tolstoi: targets are one character later", follows)


def _from_bytes(expected: np.ndarray) -> np.ndarray:
    """Return what our pipeline makes of the bytes that recorded grey images come from."""
    raw = np.rint(expected.transpose(0, 3, 1, 2) * 255).astype(np.uint8)
    images = image_set.plain(
        (torch.from_numpy(raw), torch.zeros(len(raw))),
        torch.Generator(),
        colour=False,
        dtype=torch.float32,
    )[0]
    return images.permute(0, 2, 3, 1).numpy()


def _off_least_deviation(expected: np.ndarray) -> float:
    """Return how far a result is from that of an image below the least deviation, 1 / sqrt(n).

    Such an image was multiplied by sqrt(n); divided by it, and standardised by us, it must come out
    again. Its mean is zero but for the rounding of the image's own mean, up to 255, in float32: by
    2^-24 of it, times sqrt(n).
    """
    values, root = expected.astype(np.float64), np.sqrt(expected.size)
    mean = float(values.mean())
    raw = ((values - mean) / root).astype(np.float32)
    again = image_ops.standardize(torch.from_numpy(raw).permute(2, 0, 1)[None])[0]
    deviation = max_abs(again.permute(1, 2, 0).numpy(), values - mean)
    return max(deviation, abs(mean)) if abs(mean) > root * 255 * 2.0**-24 else deviation


def _check_counts(record: Record, report: Report) -> None:
    for name in record:
        case = f"preprocessing/{name}"
        with report.attempt(case):
            if name == "two_d":
                _check_two_d_counts(case, record[name], report)
            elif isinstance(record[name], Record):
                _check_set_counts(name, record[name], report)
            elif name == "tolstoi_train_eval_batches":
                with generated_data(examples=64):
                    text = datasets.tolstoi(5)
                ours = len(text.train_eval) == len(text.train)
                same = record[name] == record.get("tolstoi_train_batches")
                report.equal(case, "all training batches are evaluated", ours == same)
            else:
                report.unchecked(case, f"{record[name]}: the size of the set is not recorded")


def _check_two_d_counts(case: str, counts: Record, report: Report) -> None:
    data = two_d(128)
    for phase in ("train", "test"):
        with report.attempt(case):
            report.equal(case, f"{phase} batches", len(getattr(data, phase)) == counts[phase])
    noise = float(data.test.arrays[0].abs().max())
    report.equal(case, "test noise is zero", noise == counts.get("test_x0", 0.0))


def _check_set_counts(name: str, counts: Record, report: Report) -> None:
    """Check the counts that do not depend on the unrecorded size of the set."""
    case = f"preprocessing/{name}"
    for key in counts:
        match = re.fullmatch(r"train_eval_batches_bs(\d+)_size(\d+)", key)
        if match is None or not hasattr(datasets, name):
            report.unchecked(case, f"{key} {counts[key]}: the size of the set is not recorded")
            continue
        with report.attempt(case):
            batch_size, size = map(int, match.groups())
            with generated_data(examples=2 * size):
                data = getattr(datasets, name)(batch_size, train_eval_size=size)
            found = len(data.train_eval)
            report.equal(case, key, found == counts[key], str(found))

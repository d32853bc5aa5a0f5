"""Forward model, translation, masks, merge and stitching against recorded arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.network.assembly import Stitcher, crop_centre, extract_group, merge_group, stitch
from ptycho_torch.parity.cases import PRECISIONS, Golden, checks, compare, deviation
from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.scaling import mask_for
from trainrig.parity import Record, Report


def forward_rows(golden: Golden, rows: np.ndarray, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Patches (B, N, N) and exit waves (B, modes, N, N) of these scan rows."""
    obj = torch.from_numpy(golden.truth).to(dtype)
    probe = torch.from_numpy(golden.probe).to(dtype)
    coords = torch.from_numpy(golden.coords[rows])
    patches = physics.extract_patches(obj, coords, probe.shape[-1])
    return patches, physics.illuminate(patches[:, None], probe)[:, 0]


@checks("forward_golden.npz")
def forward(golden: Golden, path: Path, report: Report) -> None:
    """Patch, exit wave, amplitude, losses and Parseval's sums."""
    z = golden.arrays(path.name)
    rows = z["scan_rows"]
    for dtype, name in PRECISIONS:
        bound = golden.bound(f"{name}_rel")
        patches, waves = forward_rows(golden, rows, dtype)
        amplitude = physics.diffract(waves)
        counts = torch.from_numpy(z["counts"].astype(np.float64)).to(amplitude.dtype)
        measured = torch.from_numpy(golden.scan["diff3d"][rows]).to(amplitude.dtype)
        nll = physics.poisson_nll(amplitude**2, counts)
        found = {
            "patch": patches,
            "exit_wave": waves[:, 0] if z["exit_wave"].ndim == 3 else waves,
            "amplitude": amplitude,
            "poisson_nll_tf_mean": nll.mean((1, 2)),
            "poisson_nll_tf_total_mean": nll.mean(),
            "poisson_nll_full_sum": physics.poisson_nll(amplitude**2, counts, full=True).sum(
                (1, 2)
            ),
            "mae_amplitude": physics.amplitude_mae(amplitude, measured).mean((1, 2)),
            "parseval_lhs": amplitude.square().sum((1, 2)),
            "parseval_rhs": waves.abs().square().sum((1, 2, 3)),
        }
        compare(report, f"{path.stem}/{name}", found, z, bound)
    report.equal(
        path.stem,
        "counts = stored amplitude²",
        bool(np.array_equal(np.rint(golden.scan["diff3d"][rows].astype(float) ** 2), z["counts"])),
    )


@checks("translate_golden.npz")
def translation(golden: Golden, path: Path, report: Report) -> None:
    """Sub-pixel translation of one image by several shifts."""
    z = golden.arrays(path.name)
    for dtype, name in PRECISIONS:
        found = _translated(z, dtype)
        report.check(
            f"{path.stem}/{name}", "out", deviation(found, z["out"]), golden.bound(f"{name}_rel")
        )


def _translated(z: Record, dtype: torch.dtype) -> Tensor:
    image = torch.from_numpy(z["image"])
    if image.ndim != 2:
        raise ValueError(f"image has shape {tuple(image.shape)}; (N, N) is expected")
    image = (
        image.to(dtype)
        if image.is_complex()
        else image.to(torch.float64 if dtype == torch.complex128 else torch.float32)
    )
    return physics.translate(image[None], torch.from_numpy(z["shifts_xy"]))


@checks("masks_golden.npz")
def masks(golden: Golden, path: Path, report: Report) -> None:
    """Hard and soft probe masks; sizes and widths from the settings."""
    z = golden.arrays(path.name)
    settings = golden.meta.get("masks", {})
    for key in z:
        kind = "hard" if key.startswith("hard") else "soft" if key.startswith("soft") else None
        if kind is None:
            continue
        with report.attempt(path.stem):
            reference, s = z[key], settings.get(key, {})
            size = int(s.get("N", reference.shape[-1]))
            found = mask_for(size, kind, s.get("sigma", 1.0), s.get("diameter"))
            bound = 0.0 if kind == "hard" else golden.bound("float64_rel")
            report.check(path.stem, key, deviation(found, reference.astype(float)), bound)


@checks("group_merge_golden.npz")
def group_merge(golden: Golden, path: Path, report: Report) -> None:
    """Patches at true positions, merged canvas, patches cut again, their diffraction."""
    z = golden.arrays(path.name)
    bound = golden.bound("merge_stitch_rel")
    relative = torch.from_numpy(z["coords_relative"])[:, 0].transpose(1, 2)  # (B, C, 2)
    centres = torch.from_numpy(z["coords_offsets"])[:, 0].transpose(1, 2)
    size = z["patches"].shape[1]
    case = golden.meta.get("merge_case", "merge")
    for dtype, name in PRECISIONS:
        obj = torch.from_numpy(golden.truth).to(dtype)
        probe = torch.from_numpy(golden.probe).to(dtype)
        true = physics.extract_patches(obj, (centres - relative).reshape(-1, 2), size)
        patches = torch.from_numpy(z["patches"]).permute(0, 3, 1, 2).to(dtype)
        merged = merge_group(patches, relative, int(z["padded_size"]))
        again = extract_group(merged, relative, size)
        found = {
            "patches": true.view(patches.shape).permute(0, 2, 3, 1),
            "merged_center_window": merged,
            "reextracted_center_window": again.permute(0, 2, 3, 1),
            "diffraction_center_window": physics.diffract(physics.illuminate(again, probe)).permute(
                0, 2, 3, 1
            ),
        }
        compare(report, f"{path.stem}/{case}/{name}", found, z, bound)
    coords = golden.coords[z["nn_indices"]]  # (B, C, 2)
    offsets = coords.mean(1, keepdims=True)
    table = -(coords - offsets).transpose(0, 2, 1)[:, None]
    report.check(
        f"{path.stem}/{case}",
        "coords_relative",
        deviation(table, z["coords_relative"]),
        golden.bound("float64_rel"),
    )


def exact_patches(golden: Golden, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """True patches at every scan position, and the coordinates."""
    coords = torch.from_numpy(golden.coords)
    obj = torch.from_numpy(golden.truth).to(dtype)
    return physics.extract_patches(obj, coords, golden.probe.shape[-1]), coords


@checks("stitch_golden.npz")
def stitching(golden: Golden, path: Path, report: Report) -> None:
    """Whole-scan overlap average, its counts, and the truth on the same canvas."""
    z = golden.arrays(path.name)
    mean = golden.coords.mean(0)
    compare(report, path.stem, {"mean_xy": mean}, z, golden.bound("float64_rel"))
    for crop in golden.meta["stitch_M"]:
        with report.attempt(f"{path.stem}/M{crop}"):
            _check_stitching(golden, z, int(crop), path.stem, report)


def _check_stitching(golden: Golden, z: Record, crop: int, case: str, report: Report) -> None:
    bound, mean, key = golden.bound("merge_stitch_rel"), golden.coords.mean(0), f"M{crop}"
    recorded = z[key]
    for dtype, name in PRECISIONS:
        patches, coords = exact_patches(golden, dtype)
        found = stitch(patches, coords, crop)
        report.check(f"{case}/{name}", key, deviation(found, recorded), bound)
    side = recorded.shape[-1]
    counter = Stitcher(tuple(mean), (side, side), (side / 2, side / 2))
    counter.add(crop_centre(patches, crop), coords)
    compare(report, case, {f"{key}_count": counter.weight[0]}, z, bound)
    if f"gt_{key}" in z:
        obj = torch.from_numpy(golden.truth).to(torch.complex128)
        truth = physics.extract_patches(obj, torch.from_numpy(mean)[None], side)[0]
        compare(report, case, {f"gt_{key}": truth}, z, bound)


@checks("tf_reference.npz")
def tensorflow_outputs(golden: Golden, path: Path, report: Report) -> None:
    """The TensorFlow reference's own outputs on the same inputs."""
    z = golden.arrays(path.name)
    rows = golden.arrays("forward_golden.npz")["scan_rows"]
    waves = forward_rows(golden, rows, torch.complex64)[1]
    bound = golden.bound("float32_rel")
    compare(report, path.stem, {"amplitude": physics.diffract(waves)}, z, bound)
    if "translate_golden.npz" in golden:
        with report.attempt(path.stem):
            moved = _translated(golden.arrays("translate_golden.npz"), torch.complex64)
            compare(report, path.stem, {"translate": moved}, z, bound)
    for key in z:
        with report.attempt(path.stem):
            if key.startswith("gaussian_smoothed_exit_wave"):
                row, sigma = key.removeprefix("gaussian_smoothed_exit_wave").split("_sigma")
                wave = physics.gaussian_smooth(waves[int(row), 0], float(sigma))
                compare(report, path.stem, {key: wave}, z, bound)
            elif key.startswith("stitch_M"):
                patches, coords = exact_patches(golden, torch.complex64)
                found = stitch(patches, coords, int(key.removeprefix("stitch_M")))
                compare(report, path.stem, {key: found}, z, golden.bound("merge_stitch_rel"))

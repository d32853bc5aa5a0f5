"""Forward model, translation, masks, merge and stitching against recorded arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.network.assembly import Stitcher, crop_centre, extract_group, merge_group, stitch
from ptycho_torch.parity.cases import PRECISIONS, Golden, checks, deviation, rest
from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.scaling import mask_for
from trainrig.parity import Report


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
    z = golden.load(path)
    rows = z["scan_rows"]
    used = {"scan_rows", "counts"}
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
        for key in sorted(set(found) & set(z)):
            report.check(f"{path.stem}/{name}", key, deviation(found[key], z[key]), bound)
            used.add(key)
    report.equal(
        path.stem,
        "counts = stored amplitude²",
        bool(np.array_equal(np.rint(golden.scan["diff3d"][rows].astype(float) ** 2), z["counts"])),
    )
    rest(report, path.stem, z, used)


@checks("translate_golden.npz")
def translation(golden: Golden, path: Path, report: Report) -> None:
    """Sub-pixel translation of one image by several shifts."""
    z = golden.load(path)
    for dtype, name in PRECISIONS:
        found = _translated(z, dtype)
        report.check(
            f"{path.stem}/{name}", "out", deviation(found, z["out"]), golden.bound(f"{name}_rel")
        )
    rest(report, path.stem, z, {"image", "shifts_xy", "out"})


def _translated(z: dict[str, np.ndarray], dtype: torch.dtype) -> Tensor:
    image = torch.from_numpy(z["image"])
    image = (
        image.to(dtype)
        if image.is_complex()
        else image.to(torch.float64 if dtype == torch.complex128 else torch.float32)
    )
    return physics.translate(image[None], torch.from_numpy(z["shifts_xy"]))


@checks("masks_golden.npz")
def masks(golden: Golden, path: Path, report: Report) -> None:
    """Hard and soft probe masks; sizes and widths from the settings."""
    z = golden.load(path)
    settings = golden.meta.get("masks", {})
    for key, reference in z.items():
        s = settings.get(key, {})
        kind = "hard" if key.startswith("hard") else "soft" if key.startswith("soft") else None
        if kind is None:
            report.unchecked(f"{path.stem}:{key}", "unknown kind of mask")
            continue
        size = int(s.get("N", reference.shape[-1]))
        found = mask_for(size, kind, s.get("sigma", 1.0), s.get("diameter"))
        bound = 0.0 if kind == "hard" else golden.bound("float64_rel")
        report.check(path.stem, key, deviation(found, reference.astype(float)), bound)


@checks("group_merge_golden.npz")
def group_merge(golden: Golden, path: Path, report: Report) -> None:
    """Patches at true positions, merged canvas, patches cut again, their diffraction."""
    z = golden.load(path)
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
        for key in sorted(set(found) & set(z)):
            report.check(f"{path.stem}/{case}/{name}", key, deviation(found[key], z[key]), bound)
    known = {"nn_indices", "coords_relative", "coords_offsets", "padded_size", *found}
    coords = golden.coords[z["nn_indices"]]  # (B, C, 2)
    offsets = coords.mean(1, keepdims=True)
    table = -(coords - offsets).transpose(0, 2, 1)[:, None]
    report.check(
        f"{path.stem}/{case}",
        "coords_relative",
        deviation(table, z["coords_relative"]),
        golden.bound("float64_rel"),
    )
    rest(report, path.stem, z, known)


def exact_patches(golden: Golden, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """True patches at every scan position, and the coordinates."""
    coords = torch.from_numpy(golden.coords)
    obj = torch.from_numpy(golden.truth).to(dtype)
    return physics.extract_patches(obj, coords, golden.probe.shape[-1]), coords


@checks("stitch_golden.npz")
def stitching(golden: Golden, path: Path, report: Report) -> None:
    """Whole-scan overlap average, its counts, and the truth on the same canvas."""
    z = golden.load(path)
    bound = golden.bound("merge_stitch_rel")
    mean = golden.coords.mean(0)
    used = {"mean_xy"}
    report.check(path.stem, "mean_xy", deviation(mean, z["mean_xy"]), golden.bound("float64_rel"))
    for crop in golden.meta["stitch_M"]:
        key = f"M{crop}"
        if key not in z:
            report.unchecked(f"{path.stem}:{key}", "named in meta.json, array is missing")
            continue
        for dtype, name in PRECISIONS:
            patches, coords = exact_patches(golden, dtype)
            found = stitch(patches, coords, int(crop))
            report.check(f"{path.stem}/{name}", key, deviation(found, z[key]), bound)
        used |= {key, f"{key}_count", f"gt_{key}"}
        side = z[key].shape[-1]
        if f"{key}_count" in z:
            counter = Stitcher(tuple(mean), (side, side), (side / 2, side / 2))
            counter.add(crop_centre(patches, int(crop)), coords)
            found = counter.weight[0]
            report.check(path.stem, f"{key}_count", deviation(found, z[f"{key}_count"]), bound)
        if f"gt_{key}" in z:
            obj = torch.from_numpy(golden.truth).to(torch.complex128)
            found = physics.extract_patches(obj, torch.from_numpy(mean)[None], side)[0]
            report.check(path.stem, f"gt_{key}", deviation(found, z[f"gt_{key}"]), bound)
    rest(report, path.stem, z, used)


@checks("tf_reference.npz")
def tensorflow_outputs(golden: Golden, path: Path, report: Report) -> None:
    """The TensorFlow reference's own outputs on the same inputs."""
    z = golden.load(path)
    used = set()
    rows = golden.load(golden.directory / "forward_golden.npz")["scan_rows"]
    waves = forward_rows(golden, rows, torch.complex64)[1]
    found = {"amplitude": (physics.diffract(waves), "float32_rel")}
    shifts = golden.directory / "translate_golden.npz"
    if shifts.is_file():
        found["translate"] = (_translated(golden.load(shifts), torch.complex64), "float32_rel")
    for key in z:
        if key.startswith("gaussian_smoothed_exit_wave"):
            row, sigma = key.removeprefix("gaussian_smoothed_exit_wave").split("_sigma")
            wave = physics.gaussian_smooth(waves[int(row), 0], float(sigma))
            found[key] = (wave, "float32_rel")
        elif key.startswith("stitch_M"):
            patches, coords = exact_patches(golden, torch.complex64)
            crop = int(key.removeprefix("stitch_M"))
            found[key] = (stitch(patches, coords, crop), "merge_stitch_rel")
    for key in sorted(set(found) & set(z)):
        value, bound = found[key]
        report.check(path.stem, key, deviation(value, z[key]), golden.bound(bound))
        used.add(key)
    rest(report, path.stem, z, used)

"""What a record of two references' differences says about the arrays themselves.

Each entry holds the largest value of the reference's array (``ref_max``), which ours must share,
and the largest difference of a second reference from it (``max_abs``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import torch

from ptycho_torch.network.assembly import canvas_size, extract_group, merge_group, stitch
from ptycho_torch.parity.cases import Golden, deviation
from ptycho_torch.physics import forward as physics
from ptycho_torch.scan.grouping import Groups, group_frames
from trainrig.parity import Record, Report


def recorded_groups(golden: Golden, settings: Record) -> Groups:
    """Group the scan with the settings of one case."""
    gridsize = math.isqrt(int(settings["C"]))
    return group_frames(
        golden.scan["xcoords"],
        golden.scan["ycoords"],
        gridsize=gridsize,
        nsamples=int(settings["nsamples"]),
        K=int(settings["K"]),
        seed=settings.get("seed"),
        sequential=bool(settings.get("sequential", False)),
        enable_oversampling=bool(settings.get("enable_oversampling", False)),
        neighbor_pool_size=settings.get("neighbor_pool_size"),
    )


def compare_records(golden: Golden, record: Record, case: str, report: Report) -> None:
    """Check what can be recomputed; what is recorded besides is not read."""
    for source in (_groups, _physics, _merge, _stitched):
        with report.attempt(case):
            for name, found, bound in source(golden, record):
                with report.attempt(case):
                    value = deviation(np.abs(found).max(), record[name]["ref_max"])
                    report.check(case, f"{name} ref_max", value, golden.bound(bound))
    with report.attempt(case):
        _labels(golden, record, case, report)
    with report.attempt(case):
        _indices(golden, record, case, report)
    for name in record:
        match = re.fullmatch(r"scale_nphotons_(\S+)_on_forward_golden", name)
        if match and "forward_golden.npz" in golden:
            with report.attempt(case):
                amplitude = golden.arrays("forward_golden.npz")["amplitude"]
                scale = math.sqrt(float(match[1]) / np.square(amplitude).sum((1, 2)).mean())
                report.check(
                    case, name, deviation(scale, record[name]), golden.bound("scalars_rel")
                )


def _groups(golden: Golden, record: Record) -> Iterator[tuple[str, np.ndarray, str]]:
    """Entry, our array in float64 and the name of its bound."""
    cases = golden.meta.get("grouping_cases", {})
    for name in cases:
        for key in ("coords_offsets", "coords_relative"):
            if f"{key}_{name}" in record:
                groups = recorded_groups(golden, cases[name])
                yield f"{key}_{name}", getattr(groups, key), "float64_rel"


def _stitched(golden: Golden, record: Record) -> Iterator[tuple[str, np.ndarray, str]]:
    obj, places = torch.from_numpy(golden.truth), torch.from_numpy(golden.coords)
    for name in record:
        if re.fullmatch(r"stitch_M\d+", name):
            size = golden.probe.shape[-1]
            patches = physics.extract_patches(obj.to(torch.complex128), places, size)
            yield name, stitch(patches, places, int(name[8:])).numpy(), "merge_stitch_rel"
    if "hard_mask" in record:
        yield "hard_mask", physics.hard_mask(golden.probe.shape[-1]).numpy(), "float64_rel"


def _physics(golden: Golden, record: Record) -> Iterator[tuple[str, np.ndarray, str]]:
    if "forward_golden.npz" in golden:
        z = golden.arrays("forward_golden.npz")
        obj, probe = (
            torch.from_numpy(a).to(torch.complex128) for a in (golden.truth, golden.probe)
        )
        places = torch.from_numpy(golden.coords[z["scan_rows"]])
        patches = physics.extract_patches(obj, places, probe.shape[-1])
        amplitude = physics.diffract(physics.illuminate(patches[:, None], probe)[:, 0])
        counts = torch.from_numpy(z["counts"].astype(np.float64))
        nll = physics.poisson_nll(amplitude**2, counts).mean((1, 2))
        found = {"patch_extract": patches, "amplitude": amplitude, "poisson_nll_mean": nll}
        yield from ((k, v.numpy(), "float32_rel") for k, v in found.items() if k in record)
    if "translate" in record and "translate_golden.npz" in golden:
        z = golden.arrays("translate_golden.npz")
        image = torch.from_numpy(z["image"])[None]
        moved = physics.translate(image, torch.from_numpy(z["shifts_xy"]))
        yield "translate", moved.numpy(), "float64_rel"


def _merge(golden: Golden, record: Record) -> Iterator[tuple[str, np.ndarray, str]]:
    name = "group_merge_golden.npz"
    wanted = {"merge_tf_style_small_batch", "reextract_tf_style"} & set(record)
    if name not in golden or not wanted:
        return
    z = golden.arrays(name)
    patches = torch.from_numpy(z["patches"]).permute(0, 3, 1, 2).to(torch.complex128)
    relative = torch.from_numpy(z["coords_relative"])[:, 0].transpose(1, 2)
    size, gridsize = patches.shape[-1], math.isqrt(patches.shape[1])
    merged = merge_group(patches, relative, canvas_size(size, gridsize), co_masked=False)
    found = {
        "merge_tf_style_small_batch": merged,
        "reextract_tf_style": extract_group(merged, relative, size),
    }
    yield from ((k, v.numpy(), "merge_stitch_rel") for k, v in found.items() if k in record)


def _labels(golden: Golden, record: Record, case: str, report: Report) -> None:
    """The reference's labels are the mirrored ones, and differ from the true ones by as much.

    Recorded over the groups of the merge file.
    """
    names = {"Y_vs_true_position_patches", "Y_vs_mirrored_position_patches"} & set(record)
    settings = golden.meta.get("grouping_cases", {}).get(golden.meta.get("merge_case"))
    if not names or settings is None or "group_merge_golden.npz" not in golden:
        return
    count = len(golden.arrays("group_merge_golden.npz")["nn_indices"])
    groups = recorded_groups(golden, settings)
    obj = torch.from_numpy(golden.truth)

    def cut(coords: np.ndarray) -> np.ndarray:
        places = torch.from_numpy(coords[:count, 0].transpose(0, 2, 1).reshape(-1, 2).copy())
        return physics.extract_patches(obj, places, golden.probe.shape[-1]).numpy()

    mirrored = cut(groups.coords_offsets + groups.coords_relative)
    for name in sorted(names):
        other = cut(groups.coords_nn) if "true" in name else mirrored
        found = {"max_abs": np.abs(mirrored - other).max(), "ref_max": np.abs(other).max()}
        for key, value in found.items():
            with report.attempt(case):
                worst = deviation(value, record[name][key])
                report.check(case, f"{name} {key}", worst, golden.bound("float32_rel"))


def _indices(golden: Golden, record: Record, case: str, report: Report) -> None:
    """Where both references drew the same groups, ours are the recorded ones."""
    arrays = golden.arrays("grouping_golden.npz")
    cases = golden.meta.get("grouping_cases", {})
    for name in cases:
        key = f"group_indices_{name}"
        if key in record and f"{name}.nn_indices" in arrays:
            with report.attempt(case):
                found = recorded_groups(golden, cases[name]).nn_indices
                same = bool(np.array_equal(found, arrays[f"{name}.nn_indices"]))
                report.equal(case, key, same == record[key])

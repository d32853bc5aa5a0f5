"""Grouping, scales and the recorded agreement figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho_torch.network.assembly import canvas_size
from ptycho_torch.parity.agreement_cases import compare_records, recorded_groups
from ptycho_torch.parity.cases import Golden, checks, deviation, rest
from ptycho_torch.physics.scaling import (
    input_factor,
    intensity_scale,
    mean_frame_energy,
    probe_norm,
)
from ptycho_torch.scan.grouping import neighbours
from trainrig.parity import Report

FIELDS = ("nn_indices", "coords_nn", "coords_offsets", "coords_relative")


@checks("grouping_golden.npz")
def grouping(golden: Golden, path: Path, report: Report) -> None:
    """Neighbour table and every case of index tables, exactly."""
    z = golden.load(path)
    used = {"knn_index", "knn_dist"}
    if "knn_index" in z:
        distance, index = neighbours(
            golden.scan["xcoords"], golden.scan["ycoords"], z["knn_index"].shape[1]
        )
        report.equal(path.stem, "knn_index", bool(np.array_equal(index, z["knn_index"])))
        bound = golden.bound("float64_rel")
        report.check(path.stem, "knn_dist", deviation(distance, z["knn_dist"]), bound)
    for case, settings in golden.meta.get("grouping_cases", {}).items():
        found = recorded_groups(golden, settings)
        for name in FIELDS:
            key = f"{case}.{name}"
            if key not in z:
                report.unchecked(f"{path.stem}:{key}", "named in meta.json, array is missing")
                continue
            used.add(key)
            same = bool(np.array_equal(getattr(found, name), z[key]))
            if name == "nn_indices":
                report.equal(f"{path.stem}/{case}", name, same)
            else:
                value = deviation(getattr(found, name), z[key])
                report.check(f"{path.stem}/{case}", name, value, golden.bound("float64_rel"))
    rest(report, path.stem, z, used)


def _scalar(golden: Golden, name: str, size: int, energy: float) -> float | None:
    probe = torch.from_numpy(golden.probe)
    if name.startswith("intensity_scale_closed_form_"):
        return intensity_scale(float(name.rsplit("_", 1)[1]), size)
    if name.startswith("probe_norm_") and "_scale" in name:
        kind = {"hard": "hard", "soft": "soft", "nomask": "none"}.get(name.split("_")[2])
        return probe_norm(probe, float(name.rsplit("scale", 1)[1]), kind) if kind else None
    frames = golden.scan["diff3d"]
    simple = {
        "N": lambda: float(size),
        "mean_frame_energy": lambda: energy,
        "x_norm_scalar_halfN": lambda: input_factor(energy, size),
        "rms_input_scale_amplitude_Parseval_N": lambda: size / math.sqrt(energy),
        "ci_rms_input_scale": lambda: input_factor(
            mean_frame_energy(frames.astype(float) ** 2), size
        ),
        "ci_mean_measured_intensity": lambda: energy / size**2,
    }
    if name == "physics_scale_from_data":
        normalised = energy * input_factor(energy, size) ** 2
        photons = {float(n.get("nphotons", 0)) for n in golden.meta.get("networks", {}).values()}
        if len(photons) != 1:
            return None
        return math.sqrt(photons.pop() / normalised)
    return simple[name]() if name in simple else None


@checks("scalars_golden.json")
def scalars(golden: Golden, path: Path, report: Report) -> None:
    """Normalisation factors, probe norms, intensity scales."""
    size = golden.probe.shape[-1]
    energy = mean_frame_energy(golden.scan["diff3d"])
    for name, reference in json.loads(path.read_text()).items():
        found = _scalar(golden, name, size, energy)
        if found is None:
            report.unchecked(f"{path.stem}:{name}", "no formula for this scalar")
        else:
            value = deviation(found, reference)
            report.check(path.stem, name, value, golden.bound("scalars_rel"))


@checks("tf_agreement.json")
def agreement(golden: Golden, path: Path, report: Report) -> None:
    """The quantities in the record that are results, not differences between references."""
    record = json.loads(path.read_text())
    used: set[str] = set()
    case = golden.meta.get("merge_case")
    settings = golden.meta.get("grouping_cases", {}).get(case)
    if settings is not None:
        groups = recorded_groups(golden, settings)
        gridsize = math.isqrt(int(settings["C"]))
        if "X_full_factor" in record:
            frames = golden.scan["diff3d"][groups.nn_indices].reshape(-1, *golden.probe.shape[1:])
            found = input_factor(mean_frame_energy(frames), frames.shape[-1])
            value = deviation(found, record["X_full_factor"])
            report.check(path.stem, "X_full_factor", value, golden.bound("scalars_rel"))
            used.add("X_full_factor")
        if "grouped_dict_schema" in record:
            used.add("grouped_dict_schema")
            _schema(golden, settings, record["grouped_dict_schema"], path.stem, report)
        key = f"padded_size_gs{gridsize}"
        if key in record:
            found = canvas_size(golden.probe.shape[-1], gridsize)
            report.equal(path.stem, key, found == record[key], f"{found}")
            used.add(key)
    if "probe_norm_hard_mask_scale4" in record:
        used.add("probe_norm_hard_mask_scale4")
        found = probe_norm(torch.from_numpy(golden.probe), 4.0, "hard")
        for reference in record["probe_norm_hard_mask_scale4"]:
            value = deviation(found, reference)
            report.check(path.stem, "probe_norm_hard", value, golden.bound("scalars_rel"))
    used |= compare_records(golden, record, path.stem, report)
    for name in sorted(set(record) - used):
        reason = "a recorded comparison of two references, nothing to recompute"
        if name.startswith("merge_shape_"):
            reason = "one canvas for several groups is the reference's defect, not reproduced"
        report.unchecked(f"{path.stem}:{name}", reason)


def _schema(
    golden: Golden, settings: dict[str, Any], schema: dict[str, Any], case: str, report: Report
) -> None:
    from ptycho_torch.raw_data import RawDataTorch

    raw = RawDataTorch.from_file(golden.directory / golden.scan_name)
    found = raw.generate_grouped_data(
        raw.N,
        K=int(settings["K"]),
        nsamples=int(settings["nsamples"]),
        seed=settings.get("seed"),
        sequential_sampling=bool(settings.get("sequential", False)),
        gridsize=math.isqrt(int(settings["C"])),
    )
    for key, (shape, dtype) in schema.items():
        name = dtype.removeprefix("<dtype: '").removesuffix("'>")
        value = found.get(key)
        ok = value is not None and list(value.shape) == shape and str(value.dtype) == name
        detail = "missing" if value is None else f"{value.shape} {value.dtype}"
        report.equal(case, f"schema of {key}", ok, detail)

"""Grouping, scales and the recorded agreement figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from ptycho_torch.network.assembly import canvas_size
from ptycho_torch.parity.agreement_cases import compare_records, recorded_groups
from ptycho_torch.parity.cases import Golden, checks, deviation
from ptycho_torch.physics.scaling import (
    input_factor,
    intensity_scale,
    mean_frame_energy,
    probe_norm,
)
from ptycho_torch.scan.grouping import neighbours
from trainrig.parity import Record, Report

FIELDS = ("nn_indices", "coords_nn", "coords_offsets", "coords_relative")


@checks("grouping_golden.npz")
def grouping(golden: Golden, path: Path, report: Report) -> None:
    """Neighbour table and every case of index tables, exactly."""
    z, bound = golden.arrays(path.name), golden.bound("float64_rel")
    with report.attempt(path.stem):
        index = z["knn_index"]
        distance, found = neighbours(golden.scan["xcoords"], golden.scan["ycoords"], index.shape[1])
        report.equal(path.stem, "knn_index", bool(np.array_equal(found, index)))
        report.check(path.stem, "knn_dist", deviation(distance, z["knn_dist"]), bound)
    cases = golden.meta.get("grouping_cases", {})
    for case in cases:
        where = f"{path.stem}/{case}"
        with report.attempt(where):
            groups = recorded_groups(golden, cases[case])
            for name in FIELDS:
                with report.attempt(where):
                    recorded, found = z[f"{case}.{name}"], getattr(groups, name)
                    if name == "nn_indices":
                        report.equal(where, name, bool(np.array_equal(found, recorded)))
                    else:
                        report.check(where, name, deviation(found, recorded), bound)


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
        networks = golden.meta.get("networks", {})
        photons = {float(networks[name].get("nphotons", 0)) for name in networks}
        if len(photons) != 1:
            return None
        return math.sqrt(photons.pop() / normalised)
    return simple[name]() if name in simple else None


@checks("scalars_golden.json")
def scalars(golden: Golden, path: Path, report: Report) -> None:
    """Normalisation factors, probe norms, intensity scales."""
    size = golden.probe.shape[-1]
    energy = mean_frame_energy(golden.scan["diff3d"])
    recorded = golden.json(path.name)
    for name in recorded:
        with report.attempt(path.stem):
            found = _scalar(golden, name, size, energy)
            if found is not None:
                value = deviation(found, recorded[name])
                report.check(path.stem, name, value, golden.bound("scalars_rel"))


@checks("tf_agreement.json")
def agreement(golden: Golden, path: Path, report: Report) -> None:
    """The quantities in the record that are results, not differences between references."""
    record = golden.json(path.name)
    case = golden.meta.get("merge_case")
    settings = golden.meta.get("grouping_cases", {}).get(case)
    if settings is not None:
        with report.attempt(path.stem):
            _check_merge_case(golden, settings, record, path.stem, report)
    if "probe_norm_hard_mask_scale4" in record:
        with report.attempt(path.stem):
            found = probe_norm(torch.from_numpy(golden.probe), 4.0, "hard")
            for reference in record["probe_norm_hard_mask_scale4"]:
                value = deviation(found, reference)
                report.check(path.stem, "probe_norm_hard", value, golden.bound("scalars_rel"))
    compare_records(golden, record, path.stem, report)
    for name in record:
        if name.startswith("merge_shape_"):
            record[name]
            reason = "one canvas for several groups is the reference's defect, not reproduced"
            report.unchecked(f"{path.stem}:{name}", reason)


def _check_merge_case(
    golden: Golden, settings: Record, record: Record, case: str, report: Report
) -> None:
    """Compare the scale, schema and canvas of the grouping that the merge was recorded with."""
    gridsize = math.isqrt(int(settings["C"]))
    if "X_full_factor" in record:
        groups = recorded_groups(golden, settings)
        frames = golden.scan["diff3d"][groups.nn_indices].reshape(-1, *golden.probe.shape[1:])
        found = input_factor(mean_frame_energy(frames), frames.shape[-1])
        value = deviation(found, record["X_full_factor"])
        report.check(case, "X_full_factor", value, golden.bound("scalars_rel"))
    if "grouped_dict_schema" in record:
        _schema(golden, settings, record["grouped_dict_schema"], case, report)
    key = f"padded_size_gs{gridsize}"
    if key in record:
        found = canvas_size(golden.probe.shape[-1], gridsize)
        report.equal(case, key, found == record[key], f"{found}")


def _schema(golden: Golden, settings: Record, schema: Record, case: str, report: Report) -> None:
    from ptycho_torch.raw_data import RawDataTorch

    raw = RawDataTorch.from_file(golden.folder / golden.scan_name)
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

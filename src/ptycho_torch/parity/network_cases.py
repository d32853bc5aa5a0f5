"""Parameter tables, and networks with recorded weights and outputs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ptycho_torch.network.assembly import canvas_size, extract_group, merge_group
from ptycho_torch.network.generator import Generator
from ptycho_torch.network.tf_weights import layer_order, load_tf_weights
from ptycho_torch.parity.cases import Golden, checks, compare
from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.scaling import probe_norm
from trainrig.parity import Record, Report

SWITCHES = ("amp_activation", "object_big", "pad_object", "probe_big")


@checks("tf_network_table.json")
def table(golden: Golden, path: Path, report: Report) -> None:
    """Trainable parameters and the multiset of kernel shapes of every configuration."""
    for number, row in enumerate(golden.json(path.name)):
        with report.attempt(f"{path.stem}/{number}"):
            _check_row(path.stem, row, report)
    report.unchecked(path.stem, "activations of conv_layers: the networks' outputs prove them")


def _check_row(stem: str, row: Record, report: Report) -> None:
    switches = {key: row[key] for key in SWITCHES if key in row}
    with torch.device("meta"):
        net = Generator(row["N"], row["gridsize"], row["n_filters_scale"], **switches)
    named = [f"N{row['N']}", f"gs{row['gridsize']}", f"f{row['n_filters_scale']}"]
    case = f"{stem}/" + "_".join(named + [f"{k}={v}" for k, v in switches.items()])
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    # the reference's network has no parameters outside the part that reconstructs
    for key, what in (("trainable", "parameters"), ("d2o_trainable", "of the object's network")):
        if key in row:
            report.equal(case, what, count == row[key], f"{count}")
        else:
            report.unchecked(case, f"{key} is not recorded")
    if "conv_layers" in row:
        shapes = Counter(tuple(c.weight.permute(2, 3, 1, 0).shape) for c in layer_order(net))
        wanted = Counter(tuple(shape) for shape, _ in row["conv_layers"])
        report.equal(case, "kernel shapes", shapes == wanted)
    else:
        report.unchecked(case, "conv_layers are not recorded")


@checks("network")
def network(golden: Golden, path: Path, report: Report) -> None:
    """Forward pass with recorded weights: input, patches, merged object, amplitude, loss."""
    z = golden.arrays(path.name)
    settings = golden.meta["networks"][path.stem]
    gridsize = int(settings["gridsize"])
    size = z["input_scaled"].shape[1]
    switches = {key: settings[key] for key in SWITCHES if key in settings}
    net = Generator(size, gridsize, int(settings["n_filters_scale"]), **switches)
    names = [str(name) for name in z["weight_names"]]
    try:
        load_tf_weights(net, {name: z[f"w{i:02d}"] for i, name in enumerate(names)})
    except ValueError as error:
        report.equal(path.stem, "weights load", False, str(error))
        return
    scale = float(z["intensity_scale"])
    scaled = torch.from_numpy(z["input_scaled"]).permute(0, 3, 1, 2)
    relative = torch.from_numpy(z["coords_relative"])[:, 0].transpose(1, 2).double()
    probe = torch.from_numpy(np.atleast_3d(z["probe"])).permute(2, 0, 1)
    with torch.no_grad():
        patches = net(scaled / scale)
        found = {"net_input": scaled / scale, "obj_patches": patches}
        canvas = int(settings.get("padded_size", canvas_size(size, gridsize)))
        if settings.get("object_big", True):
            merged = merge_group(patches, relative, canvas, co_masked=False)
            start = (canvas - size) // 2
            trimmed = merged[:, start : start + size, start : start + size]
            again = extract_group(merged, relative, size)
        else:
            trimmed, again = patches[:, 0], patches.expand(-1, gridsize**2, -1, -1)
        waves = physics.illuminate(
            again, probe, sigma=settings.get("gaussian_smoothing_sigma", 0.0)
        )
        amplitude = physics.diffract(waves) * scale
    found |= {
        "trimmed_obj": trimmed[:, None],
        "d2o": trimmed[:, None],
        "pred_amp_scaled": amplitude,
        "nll": physics.poisson_nll(amplitude.square(), scaled.square()).mean(),
    }
    found = {
        key: value if key == "nll" else value.permute(0, 2, 3, 1) for key, value in found.items()
    }
    bound = golden.bound("network_rel")
    compare(report, path.stem, found, z, bound)
    if "probe_scale" in settings and golden.scan_name in golden:
        with report.attempt(path.stem):
            norm = probe_norm(torch.from_numpy(golden.probe), float(settings["probe_scale"]))
            found_probe = np.moveaxis(golden.probe / norm, 0, -1)
            compare(report, path.stem, {"probe": found_probe}, z, bound)

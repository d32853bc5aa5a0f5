"""Initial values and shapes: recorded statistics of one draw against many of ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_port.model.jax_weights import as_haiku, parameter_map
from pytorch_port.model.sequence_models import build_model
from pytorch_port.parity.golden import as_array, never_nan
from trainrig.models.init import TRUNCATION_STD
from trainrig.parity import Report

N_DRAWS = 8
#: Standard errors a mean or standard deviation may be off: about 1e-9 per comparison.
MAX_SIGMAS = 6.0
#: Mean gaps that the largest |value| of n draws may be off: exp(-16) per comparison.
MAX_GAPS = 16.0
#: Density of |x| at its end, 2s, times s, for a normal of scale s truncated there.
EDGE_DENSITY = 0.1131


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return Haiku name → Haiku shape of every parameter."""
    parameters = as_haiku(parameter_map(model), dict(model.named_parameters()))
    return {name: tuple(tensor.shape) for name, tensor in parameters.items()}


def check_init_stats(
    report: Report,
    case: str,
    recorded: Mapping[str, Sequence[Any]],
    blank: Callable[[], nn.Module],
) -> None:
    """Compare [shape, mean, std, min, max] of every parameter's initial value.

    Shapes and constants must be equal. Of a random parameter the recorded numbers are one draw:
    mean and std are judged in standard errors, the largest magnitude in mean gaps between the
    largest draws, which tells a truncated normal from others.
    """
    draws: dict[str, list[np.ndarray]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [blank() for _ in range(N_DRAWS)]
    for model in models:
        for name, tensor in as_haiku(parameter_map(model), dict(model.named_parameters())).items():
            draws.setdefault(name, []).append(as_array(tensor))
    report.equal(case, "initial names", set(draws) == set(recorded))
    wrong_shapes, wrong_constants = [], []
    worst = {"mean": (0.0, ""), "std": (0.0, ""), "range": (0.0, "")}
    for name in sorted(set(draws) & set(recorded)):
        shape, *numbers = recorded[name]
        if len(numbers) != 4 or any(x is None or not math.isfinite(x) for x in numbers):
            report.unchecked(case, f"init_stats/{name}: {numbers} are not mean, std, min and max")
            continue
        mean, std, low, high = numbers
        ours = np.stack(draws[name])
        if list(ours.shape[1:]) != list(shape):
            wrong_shapes.append(name)
        elif std == 0.0 or ours.std() == 0.0:
            if not (ours.min() == ours.max() == low == high == mean):
                wrong_constants.append(name)
        else:
            for what, value in _deviations(ours, mean, std, max(-low, high)).items():
                worst[what] = max(worst[what], (never_nan(value), name))
    report.equal(case, "initial shapes", not wrong_shapes, ", ".join(wrong_shapes[:3]))
    report.equal(case, "initial constants", not wrong_constants, ", ".join(wrong_constants[:3]))
    for what, (value, name) in worst.items():
        bound = MAX_GAPS if what == "range" else MAX_SIGMAS
        unit = "gaps" if what == "range" else "standard errors"
        report.check(case, f"initial {what} ({unit})", value, bound, name)


def _deviations(ours: np.ndarray, mean: float, std: float, largest: float) -> dict[str, float]:
    """Return how far recorded statistics lie from those of our draws (draws, *shape)."""
    n = ours[0].size
    extra = math.sqrt(1.0 + 1.0 / len(ours))  # our own sampling error
    sigma = float(ours.std())
    kurtosis = float(((ours - ours.mean()) ** 4).mean()) / sigma**4
    gap = sigma / TRUNCATION_STD / (EDGE_DENSITY * n)
    return {
        "mean": abs(mean - float(ours.mean())) / (sigma * extra / math.sqrt(n)),
        "std": abs(std - sigma) / (sigma * extra * math.sqrt((kurtosis - 1.0) / (4.0 * n))),
        "range": abs(largest - float(np.abs(ours).max())) / gap,
    }


def check_shapes(report: Report, case: str, settings: Mapping[str, Any]) -> None:
    """Build the model whose shapes are recorded and compare names, shapes and count."""
    recorded = {name: tuple(shape) for name, shape in settings["shapes"].items()}
    try:
        model = build_from_shapes(recorded)
    except Exception as error:
        report.unchecked(case, f"no model of ours can be read off these shapes ({error})")
        return
    ours = shapes_of(model)
    wrong = sorted(name for name in {*ours, *recorded} if ours.get(name) != recorded.get(name))
    report.equal(case, "names and shapes", not wrong, ", ".join(wrong[:3]))
    if "n_params" in settings:
        count = sum(p.numel() for p in model.parameters())
        report.equal(case, "parameter count", count == settings["n_params"], f"{count:,}")


def build_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Infer a model from the Haiku names and shapes of its parameters, and build it.

    The number of heads leaves no trace in the shapes; one is used.

    Raises:
        ValueError: no sequence model has such names.
        KeyError: a name every model has is missing.
    """
    kinds = {
        "transformer": r"transformer/(transformer_block(_\d+)?)/",
        "lstm": r"rnn/(lstm(_\d+)?)/",
        "vanilla_rnn": r"rnn/(vanilla_rnn(_\d+)?)/",
    }
    found = {
        kind: {m[1] for name in shapes if (m := re.match(pattern, name))}
        for kind, pattern in kinds.items()
    }
    seq_model = max(found, key=lambda kind: len(found[kind]))
    layers = found[seq_model]
    if not layers:
        raise ValueError("no transformer, lstm or vanilla_rnn among the names")
    head = shapes["transformer/linear/w" if seq_model == "transformer" else "rnn/linear/w"]
    model: dict[str, Any] = {"num_classes": head[1], "num_layers": len(layers)}
    model |= {"num_heads": 1} if seq_model == "transformer" else {"hidden_size": head[0]}
    rows, emb_dim = shapes["input_embedder/embs"]
    embedding: dict[str, Any] = {"emb_dim": emb_dim, "concatenate_labels": rows > head[1]}
    example_shape = None
    stem = shapes.get("input_embedder/simple_res_net/~/initial_conv/w")
    if stem is not None:
        last = shapes["input_embedder/simple_res_net/~/block_group_3/~/block_0/~/conv_2/w"]
        embedding |= {"example_encoding": "resnet", "flatten_superpixels": last[3] != emb_dim}
        example_shape = (stem[2], 105, 105)
    elif "input_embedder/linear/w" in shapes:
        embedding["example_encoding"] = "linear"
        example_shape = (1, 1, shapes["input_embedder/linear/w"][0])
    else:
        embedding["example_encoding"] = "embedding"
    return build_model(seq_model, embedding=embedding, model=model, example_shape=example_shape)

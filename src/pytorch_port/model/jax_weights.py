"""Carries weights and BatchNorm state between Haiku names and this port, none left over.

A Haiku name is ``module/name``, e.g. ``transformer/transformer_block_1/layer_norm/scale``; the map
is built from the model itself, so depth, encoder and sequence model need no table of names.
Layouts: dense weights are (in, out) there and (out, in) here, convolutions (kh, kw, in, out) and
(out, in, kh, kw), norm parameters and state of images (1, 1, 1, C) and (C,).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_port.model.embedding import InputEmbedder
from pytorch_port.model.sequence_models import LSTM, TransformerICL, VanillaRNN
from trainrig.errors import nearest
from trainrig.models.resnet import Bottleneck, ResNetEncoder

Layout = Literal["same", "dense", "conv", "channels"]
Arrays = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a Haiku array lives here: tensor name, layout and, for BatchNorm state, its row."""

    name: str
    layout: Layout = "same"
    row: int | None = None

    def to_haiku(self, tensor: Tensor) -> Tensor:
        """Rearrange a tensor (or its gradient) as Haiku stores it; a view where possible."""
        if self.row is not None:
            tensor = tensor[self.row]
        if self.layout == "dense":
            return tensor.t()
        if self.layout == "conv":
            return tensor.permute(2, 3, 1, 0)
        return tensor[None, None, None] if self.layout == "channels" else tensor

    def to_torch(self, array: np.ndarray) -> Tensor:
        """Rearrange a Haiku array as this port stores it."""
        tensor = torch.from_numpy(np.array(array))
        if self.layout == "dense":
            return tensor.t()
        if self.layout == "conv":
            return tensor.permute(3, 2, 0, 1)
        return tensor.flatten() if self.layout == "channels" else tensor


Pairs = Iterator[tuple[str, Entry]]


def _dense(haiku: str, torch_name: str) -> Pairs:
    yield f"{haiku}/w", Entry(f"{torch_name}.weight", "dense")
    yield f"{haiku}/b", Entry(f"{torch_name}.bias")


def _norm(haiku: str, torch_name: str, layout: Layout) -> Pairs:
    yield f"{haiku}/scale", Entry(f"{torch_name}.weight", layout)
    yield f"{haiku}/offset", Entry(f"{torch_name}.bias", layout)


def _numbered(name: str, index: int) -> str:
    """Haiku's numbering of repeated modules: ``x``, ``x_1``, ``x_2``."""
    return f"{name}_{index}" if index else name


def _resnet_norms(encoder: ResNetEncoder) -> Iterator[tuple[str, str]]:
    """Yield (Haiku module, torch module) of every BatchNorm of the encoder."""
    yield "initial_batchnorm", "stem_norm"
    for haiku, here, block in _resnet_blocks(encoder):
        for i in range(3):
            yield f"{haiku}/batchnorm_{i}", f"{here}.norm_{i}"
        if block.shortcut_norm is not None:
            yield f"{haiku}/shortcut_batchnorm", f"{here}.shortcut_norm"


def _resnet_blocks(encoder: ResNetEncoder) -> Iterator[tuple[str, str, Bottleneck]]:
    for g, group in enumerate(encoder.groups):
        for b, block in enumerate(group.children()):
            assert isinstance(block, Bottleneck)
            yield f"block_group_{g}/~/block_{b}/~", f"groups.{g}.{b}", block


def _resnet_convs(encoder: ResNetEncoder) -> Iterator[tuple[str, str]]:
    yield "initial_conv", "stem_conv"
    for haiku, here, block in _resnet_blocks(encoder):
        for i in range(3):
            yield f"{haiku}/conv_{i}", f"{here}.conv_{i}"
        if block.shortcut_conv is not None:
            yield f"{haiku}/shortcut_conv", f"{here}.shortcut_conv"


RESNET = "input_embedder/simple_res_net/~"
ENCODER = "embedder.encoder"


def _embedder_pairs(embedder: InputEmbedder) -> Pairs:
    yield "input_embedder/embs", Entry("embedder.label_table")
    encoder = embedder.encoder
    if isinstance(encoder, nn.Embedding):
        yield "input_embedder/embed/embeddings", Entry(f"{ENCODER}.weight")
    elif isinstance(encoder, nn.Linear):
        yield from _dense("input_embedder/linear", ENCODER)
    elif isinstance(encoder, ResNetEncoder):
        for haiku, here in _resnet_convs(encoder):
            yield f"{RESNET}/{haiku}/w", Entry(f"{ENCODER}.{here}.weight", "conv")
        for haiku, here in _resnet_norms(encoder):
            yield from _norm(f"{RESNET}/{haiku}", f"{ENCODER}.{here}", "channels")
    else:
        raise ValueError(
            f"example_encoding {embedder.example_encoding!r}: the reference has no such encoder; "
            "its weights are those of 'resnet', 'linear' or 'embedding'"
        )


def _transformer_pairs(model: TransformerICL) -> Pairs:
    for i in range(len(model.blocks)):
        haiku, here = _numbered("transformer/transformer_block", i), f"blocks.{i}"
        yield from _norm(f"{haiku}/layer_norm", f"{here}.attention_norm", "same")
        yield from _norm(f"{haiku}/layer_norm_1", f"{here}.mlp_norm", "same")
        attention = f"{haiku}/self_attention_block/causal_self_attention"
        for j, part in enumerate(("query", "key", "value", "out")):
            yield from _dense(f"{attention}/{_numbered('linear', j)}", f"{here}.attention.{part}")
        for j, part in enumerate(("mlp_in", "mlp_out")):
            yield from _dense(f"{haiku}/dense_block/{_numbered('linear', j)}", f"{here}.{part}")
    yield from _norm("transformer/layer_norm", "norm", "same")
    yield from _dense("transformer/linear", "head")


def _recurrent_pairs(model: LSTM | VanillaRNN) -> Pairs:
    for i in range(len(model.cores)):
        here = f"cores.{i}"
        if isinstance(model, LSTM):
            yield from _dense(f"rnn/{_numbered('lstm', i)}/linear", here)
        else:
            haiku = f"rnn/{_numbered('vanilla_rnn', i)}"
            yield from _dense(f"{haiku}/linear", f"{here}.input")
            yield from _dense(f"{haiku}/linear_1", f"{here}.hidden")
    yield from _dense("rnn/linear", "head")


def parameter_map(model: nn.Module) -> dict[str, Entry]:
    """Return Haiku name → :class:`Entry` for every parameter of an ICL model.

    Raises:
        TypeError: a model this map does not know.
        RuntimeError: the map misses a parameter (a defect of this module).
    """
    if isinstance(model, TransformerICL):
        pairs = _transformer_pairs(model)
    elif isinstance(model, LSTM | VanillaRNN):
        pairs = _recurrent_pairs(model)
    else:
        raise TypeError(f"jax_weights: no Haiku names for a {type(model).__name__}")
    entries = {**dict(_embedder_pairs(model.embedder)), **dict(pairs)}
    missed = {name for name, _ in model.named_parameters()} ^ {e.name for e in entries.values()}
    if missed:
        raise RuntimeError(f"jax_weights: parameters without a Haiku name: {sorted(missed)}")
    return entries


def state_map(model: nn.Module) -> dict[str, Entry]:
    """Return Haiku state name → :class:`Entry` for the BatchNorm state (empty without ResNet)."""
    entries: dict[str, Entry] = {}
    embedder: Any = model.embedder
    encoder = embedder.encoder
    if not isinstance(encoder, ResNetEncoder):
        return entries
    for haiku, here in _resnet_norms(encoder):
        for row, average in enumerate(("mean_ema", "var_ema")):
            prefix = f"{RESNET}/{haiku}/~/{average}"
            for part in ("hidden", "average"):
                entries[f"{prefix}/{part}"] = Entry(f"{ENCODER}.{here}.{part}", "channels", row)
            entries[f"{prefix}/counter"] = Entry(f"{ENCODER}.{here}.counter")
    return entries


def flatten(arrays: Arrays) -> dict[str, np.ndarray]:
    """Accept ``{"module/name": array}`` or Haiku's ``{"module": {"name": array}}``."""
    flat: dict[str, np.ndarray] = {}
    for key, value in arrays.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{name}": np.asarray(array) for name, array in value.items()})
        else:
            flat[key] = np.asarray(value)
    return flat


def _convert(
    model: nn.Module, entries: Mapping[str, Entry], arrays: Arrays, what: str
) -> list[tuple[Tensor, Tensor]]:
    """Return (tensor of the model, value to copy into it) for every name, all checked."""
    flat = flatten(arrays)
    for name in flat:
        if name not in entries:
            hint = nearest(name, entries)
            raise KeyError(f"jax_weights: {what} {name!r} has no place in this model{hint}")
    missing = sorted(set(entries) - set(flat))
    if missing:
        raise KeyError(f"jax_weights: {len(missing)} missing {what} names, e.g. {missing[0]!r}")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    converted: dict[str, Tensor] = {}
    for name, entry in entries.items():
        given, expected = flat[name], tuple(entry.to_haiku(tensors[entry.name]).shape)
        if tuple(given.shape) != expected:
            raise ValueError(
                f"jax_weights: {what} {name!r} has shape {tuple(given.shape)}; this model needs "
                f"{expected}"
            )
        converted[name] = entry.to_torch(given)
    _check_counters(entries, converted)
    return [
        (tensors[e.name] if e.row is None else tensors[e.name][e.row], converted[name])
        for name, e in entries.items()
    ]


def _check_counters(entries: Mapping[str, Entry], converted: Mapping[str, Tensor]) -> None:
    """Refuse state whose mean and variance were updated unequally often: we keep one counter."""
    seen: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if (
            name.endswith("/counter")
            and seen.setdefault(entry.name, converted[name]) != (converted[name])
        ):
            raise ValueError(f"jax_weights: {name!r} differs from the counter of its mean")


def load_jax_weights(model: nn.Module, params: Arrays, state: Arrays | None = None) -> None:
    """Copy Haiku parameters (and BatchNorm state) into ``model``; nothing is copied on error.

    Args:
        model: from :func:`~pytorch_port.model.sequence_models.build_model`.
        params: every parameter, flat (``"module/name"``) or nested as Haiku keeps it.
        state: every BatchNorm average, or ``None`` to leave the model's.

    Raises:
        KeyError: a name too many or missing.
        ValueError: an array of the wrong shape, or counters that disagree.
    """
    with torch.no_grad():
        pairs = _convert(model, parameter_map(model), params, "parameter")
        if state is not None:
            pairs += _convert(model, state_map(model), state, "state")
        for target, value in pairs:
            target.copy_(value)


def export_jax_weights(model: nn.Module) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return (parameters, BatchNorm state) under flat Haiku names and in Haiku layouts."""
    parameters = as_haiku(parameter_map(model), dict(model.named_parameters()))
    state = as_haiku(state_map(model), dict(model.named_buffers()))
    return (
        {name: tensor.numpy() for name, tensor in parameters.items()},
        {name: tensor.numpy() for name, tensor in state.items()},
    )


def as_haiku(
    entries: Mapping[str, Entry], tensors: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Rename and rearrange tensors keyed by torch name; a missing (None) gradient is an error."""
    result: dict[str, Tensor] = {}
    for name, entry in entries.items():
        tensor = tensors[entry.name]
        if tensor is None:
            raise ValueError(f"jax_weights: no tensor for {name!r}")
        result[name] = entry.to_haiku(tensor.detach().cpu())
    return result

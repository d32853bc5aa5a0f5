"""Weights of the TensorFlow network, by layer name, into the torch generator.

Keras numbers its convolutions in order of creation: the encoder first, then per decoder the
central head, the border head, the base stages and the border convolutions. Kernels are HWIO
there and OIHW here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ptycho_torch.network.generator import Decoder, Generator


def layer_order(generator: Generator) -> list[nn.Conv2d]:
    """The generator's convolutions in the order of Keras's numbering."""

    def decoder(part: Decoder) -> list[nn.Conv2d]:
        heads = [part.head] + ([part.border_head] if part.border_head is not None else [])
        return [*heads, *part.convs, *part.border_convs]

    return [*generator.encoder.convs, *decoder(generator.amplitude), *decoder(generator.phase)]


def load_tf_weights(generator: Generator, weights: Mapping[str, np.ndarray]) -> None:
    """Copy ``{"conv2d_3/kernel": array, ...}`` into the generator, every array accounted for.

    Raises:
        ValueError: a missing, surplus or wrongly shaped array, with its name.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        match = re.search(r"conv2d(?:_(\d+))?/(kernel|bias)", name)
        if match is None:
            raise ValueError(f"load_tf_weights: {name!r} is no convolution's kernel or bias")
        found.setdefault(int(match[1] or 0), {})[match[2]] = value
    layers = layer_order(generator)
    if len(found) != len(layers):
        raise ValueError(
            f"load_tf_weights: {len(found)} convolutions given, the network has {len(layers)}; "
            "check N, gridsize, pad_object and probe_big"
        )
    with torch.no_grad():
        for number, layer in zip(sorted(found), layers, strict=True):
            kernel = torch.from_numpy(np.asarray(found[number]["kernel"])).permute(3, 2, 0, 1)
            if kernel.shape != layer.weight.shape:
                raise ValueError(
                    f"load_tf_weights: conv2d_{number} has shape {tuple(kernel.shape)}, the "
                    f"network's layer {tuple(layer.weight.shape)}"
                )
            assert layer.bias is not None
            layer.weight.copy_(kernel)
            layer.bias.copy_(torch.from_numpy(np.asarray(found[number]["bias"])))

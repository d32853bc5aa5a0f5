"""TensorFlow variables by name: read and write a network's tensors in TensorFlow's layout.

Layers are named after their TensorFlow scopes, so names need no table:

| layer | TensorFlow variables | layout |
|---|---|---|
| Conv2d | kernel (kh, kw, in, out), bias | permuted (3, 2, 0, 1) |
| ConvTranspose2d | kernel (kh, kw, out, in), bias | permuted (3, 2, 0, 1) |
| Linear | kernel (in, out), bias | transposed |
| BatchNorm2d | gamma, beta, moving_mean, moving_variance | as is |
| LSTMLayer | kernel (in + hidden, 4 hidden), bias; gates i, j, f, o | split, gates reordered |
| anything else with parameters | the attribute's name | as is |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deepobs.pytorch.testproblems._char_rnn import CharRNN, LSTMLayer
from trainrig.errors import nearest

_CONV, _DENSE = (3, 2, 0, 1), (1, 0)
_CONV_BACK = (2, 3, 1, 0)
#: Position of PyTorch's gates (i, f, g, o) among TensorFlow's (i, j, f, o), g being j.
_GATES = (0, 2, 1, 3)


@dataclass(frozen=True, slots=True)
class Variable:
    """One TensorFlow variable and the tensors that hold it.

    Attributes:
        name: e.g. ``encoder/conv2d_1/kernel``.
        tensors: one tensor, or two for an LSTM kernel (input and recurrent part).
        layout: ``plain``, ``conv``, ``dense`` or ``lstm``.
        trainable: False for moving statistics.
    """

    name: str
    tensors: tuple[Tensor, ...]
    layout: str
    trainable: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in TensorFlow's layout."""
        first = self.tensors[0]
        if self.layout == "conv":
            return tuple(first.permute(_CONV_BACK).shape)
        if self.layout == "lstm" and first.ndim == 2:
            return (sum(t.shape[1] for t in self.tensors), first.shape[0])
        return tuple(reversed(first.shape)) if self.layout == "dense" else tuple(first.shape)

    def to_tf(self, tensors: Sequence[Tensor]) -> np.ndarray:
        """Return tensors shaped like ``self.tensors`` (values or gradients) as one array."""
        arrays = [tensor.detach().cpu() for tensor in tensors]
        if self.layout == "conv":
            return arrays[0].permute(_CONV_BACK).contiguous().numpy()
        if self.layout == "dense":
            return arrays[0].T.contiguous().numpy()
        if self.layout == "lstm":
            joint = torch.cat([_gates(array).movedim(0, -1) for array in arrays], 0)
            return joint.contiguous().numpy()
        return arrays[0].numpy()

    def value(self) -> np.ndarray:
        """Return the present value in TensorFlow's layout."""
        return self.to_tf(self.tensors)

    def gradient(self) -> np.ndarray | None:
        """Return ``.grad`` in TensorFlow's layout, or None where a part has none."""
        gradients = [tensor.grad for tensor in self.tensors if tensor.grad is not None]
        return self.to_tf(gradients) if len(gradients) == len(self.tensors) else None

    @torch.no_grad()
    def assign(self, array: np.ndarray) -> None:
        """Write a value given in TensorFlow's layout.

        Raises:
            ValueError: another shape.
        """
        if tuple(array.shape) != self.shape:
            raise ValueError(
                f"{self.name}: shape {tuple(array.shape)}; the network expects {self.shape}"
            )
        value = torch.from_numpy(np.array(array, order="C"))  # keeps scalars scalar
        if self.layout == "conv":
            self.tensors[0].copy_(value.permute(_CONV))
        elif self.layout == "dense":
            self.tensors[0].copy_(value.T)
        elif self.layout == "lstm" and value.ndim == 2:
            cut = self.tensors[0].shape[1]
            for tensor, rows in zip(self.tensors, (value[:cut], value[cut:]), strict=True):
                tensor.copy_(_gates(rows.T))
        elif self.layout == "lstm":
            self.tensors[0].copy_(_gates(value))
        else:
            self.tensors[0].copy_(value)


def _gates(tensor: Tensor) -> Tensor:
    """Swap the second and third quarter of axis 0; the permutation is its own inverse."""
    quarters = tensor.chunk(4, 0)
    return torch.cat([quarters[i] for i in _GATES], 0)


def tf_variables(net: nn.Module) -> list[Variable]:
    """Return a network's variables in TensorFlow's creation order, moving statistics last."""
    variables = [variable for path, module in net.named_modules() for variable in _of(path, module)]
    return [v for v in variables if v.trainable] + [v for v in variables if not v.trainable]


def _of(path: str, module: nn.Module) -> Iterator[Variable]:
    scope = path.replace(".", "/").replace("fully_connected", "fully-connected")
    if isinstance(module, CharRNN):
        return
    if isinstance(module, nn.Embedding):
        yield Variable(scope, (module.weight,), "plain")
    elif isinstance(module, LSTMLayer):
        scope = f"rnn/multi_rnn_cell/{scope}/lstm_cell"
        yield Variable(f"{scope}/kernel", (module.weight_ih, module.weight_hh), "lstm")
        yield Variable(f"{scope}/bias", (module.bias,), "lstm")
    elif isinstance(module, nn.Linear) and scope == "rnnlm":
        yield Variable("rnnlm/softmax_w", (module.weight,), "dense")
        yield Variable("rnnlm/softmax_b", (module.bias,), "plain")
    elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        layout = "dense" if isinstance(module, nn.Linear) else "conv"
        yield Variable(f"{scope}/kernel", (module.weight,), layout)
        if module.bias is not None:
            yield Variable(f"{scope}/bias", (module.bias,), "plain")
    elif isinstance(module, nn.BatchNorm2d):
        yield from _of_batch_norm(scope, module)
    else:
        for name, parameter in module.named_parameters(recurse=False):
            yield Variable(f"{scope}/{name}".lstrip("/"), (parameter,), "plain")


def _of_batch_norm(scope: str, norm: nn.BatchNorm2d) -> Iterator[Variable]:
    yield Variable(f"{scope}/gamma", (norm.weight,), "plain")
    yield Variable(f"{scope}/beta", (norm.bias,), "plain")
    moving = {"moving_mean": norm.running_mean, "moving_variance": norm.running_var}
    for name, statistic in moving.items():
        if statistic is not None:
            yield Variable(f"{scope}/{name}", (statistic,), "plain", trainable=False)


def load_tf_variables(net: nn.Module, values: Mapping[str, np.ndarray]) -> None:
    """Write TensorFlow variables into a network; every name must match, both ways.

    Args:
        net: a network of this package.
        values: arrays by TensorFlow name; a trailing ``:0`` is accepted.

    Raises:
        KeyError: an unknown name, or a variable of the network without a value.
        ValueError: a wrong shape.
    """
    variables = {variable.name: variable for variable in tf_variables(net)}
    given = {name.removesuffix(":0"): value for name, value in values.items()}
    for name in given:
        if name not in variables:
            raise KeyError(f"tf_weights: unknown variable {name!r}{nearest(name, variables)}")
    missing = sorted(variables.keys() - given.keys())
    if missing:
        raise KeyError(f"tf_weights: no value for {missing[0]!r} and {len(missing) - 1} others")
    for name, value in given.items():
        variables[name].assign(value)


def dump_tf_variables(net: nn.Module) -> dict[str, np.ndarray]:
    """Return all variables of a network by TensorFlow name, in TensorFlow's layout."""
    return {variable.name: variable.value().copy() for variable in tf_variables(net)}

"""The three sequence models of the ICL experiments behind one ``build_model``.

Legend: B batch, L items, T tokens, E token width, K classes.

All take ``(examples, labels)`` and return logits for every token, (B, T, K), or with
``query_only=True`` for the last token alone, (B, 1, K). The transformer's last block then runs its
query projection and MLP at that token only; the numbers are the same within rounding, and training
without interim predictions needs no others.

Source: icl reference, ``modules/transformer.py`` and ``modules/rnn.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pytorch_port.model.embedding import InputEmbedder
from trainrig.models.init import dense, fan_in_normal_
from trainrig.models.transformer import LAYER_NORM_EPS, Block
from trainrig.registry import Registry
from trainrig.seeding import PortableDraws

SEQ_MODELS = Registry("sequence model")


@SEQ_MODELS.register("transformer")
class TransformerICL(nn.Module):
    """A causal pre-LN transformer over interleaved example and label tokens.

    Args:
        embedder: makes the tokens; its ``token_width`` is the model's width.
        num_classes: K.
        num_layers: number of blocks.
        num_heads: attention heads per block.
        dropout_prob: residual dropout in training.
        init_scale: factor on the reference's initial values of all attention and MLP weights.
    """

    def __init__(
        self,
        embedder: InputEmbedder,
        num_classes: int,
        num_layers: int = 12,
        num_heads: int = 8,
        dropout_prob: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        width = embedder.token_width
        _check_positive(num_layers=num_layers, num_classes=num_classes)
        self.embedder = embedder
        self.blocks = nn.ModuleList(
            Block(width, num_heads, dropout_prob) for _ in range(num_layers)
        )
        for parameter in self.blocks.parameters() if init_scale != 1.0 else ():
            if parameter.ndim > 1:
                parameter.data.mul_(init_scale)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = dense(width, num_classes, corrected=True)

    def forward(self, examples: Tensor, labels: Tensor, query_only: bool = False) -> Tensor:
        """Return logits (B, T, K), or (B, 1, K) of the query with ``query_only``."""
        x = self.embedder(examples, labels)  # (B, T, E)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block(x, query_only=query_only and i == last)
        return self.head(self.norm(x))


class RecurrentCore(nn.Module):
    """What LSTM and vanilla RNN share: embed, unroll from a zero state, dense head.

    The parameters keep the reference's arrays; ``_weights`` arranges them for torch's kernels.

    Args:
        embedder: makes the tokens.
        num_classes: K.
        num_layers: stacked cores, no skip connections, no norms.
        hidden_size: width of every core.
        dropout_prob: accepted and ignored, as in the reference.
    """

    def __init__(
        self,
        embedder: InputEmbedder,
        num_classes: int,
        num_layers: int = 12,
        hidden_size: int = 64,
        dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        _check_positive(num_layers=num_layers, num_classes=num_classes, hidden_size=hidden_size)
        self.embedder = embedder
        self.hidden_size = hidden_size
        self.dropout_prob = dropout_prob
        widths = [embedder.token_width, *[hidden_size] * (num_layers - 1)]
        self.cores = nn.ModuleList(self._make_core(width) for width in widths)
        self.head = dense(hidden_size, num_classes, corrected=True)

    def _make_core(self, n_in: int) -> nn.Module:
        raise NotImplementedError

    def _unroll(self, x: Tensor, zero: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, examples: Tensor, labels: Tensor, query_only: bool = False) -> Tensor:
        """Return logits (B, T, K), or (B, 1, K) of the query with ``query_only``."""
        x = self.embedder(examples, labels)  # (B, T, E)
        zero = x.new_zeros(len(self.cores), x.shape[0], self.hidden_size)
        x = self._unroll(x, zero)  # (B, T, hidden)
        return self.head(x[:, -1:] if query_only else x)


class _LSTMCore(nn.Module):
    """One dense layer on [x, h] to the gates i, g, f, o (4·hidden, in + hidden)."""

    def __init__(self, n_in: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4 * hidden_size, n_in + hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        fan_in_normal_(self.weight, n_in + hidden_size, corrected=False)


@SEQ_MODELS.register("lstm")
class LSTM(RecurrentCore):
    """Stacked LSTM: gates in order i, g, f, o, and +1 added to the forget gate at run time."""

    def _make_core(self, n_in: int) -> nn.Module:
        return _LSTMCore(n_in, self.hidden_size)

    def _weights(self, core: Any, n_in: int) -> list[Tensor]:
        """Reorder to torch's i, f, g, o and split into input and recurrent parts."""
        i, g, f, o = core.weight.chunk(4)
        b_i, b_g, b_f, b_o = core.bias.chunk(4)
        weight = torch.cat([i, f, g, o])
        bias = torch.cat([b_i, b_f + 1.0, b_g, b_o])
        w_input, w_hidden = weight.split([n_in, self.hidden_size], dim=1)
        return [w_input.contiguous(), w_hidden.contiguous(), bias, torch.zeros_like(bias)]

    def _unroll(self, x: Tensor, zero: Tensor) -> Tensor:
        n_in = x.shape[-1]
        weights: list[Tensor] = []
        for core in self.cores:
            weights += self._weights(core, n_in)
            n_in = self.hidden_size
        out, _, _ = torch.lstm(
            x, [zero, zero], weights, True, len(self.cores), 0.0, self.training, False, True
        )
        return out


class _VanillaCore(nn.Module):
    """``relu(W x + b + U h + b')``: two dense layers, each with its bias."""

    def __init__(self, n_in: int, hidden_size: int) -> None:
        super().__init__()
        self.input = dense(n_in, hidden_size, corrected=False)
        self.hidden = dense(hidden_size, hidden_size, corrected=False)


@SEQ_MODELS.register("vanilla_rnn")
class VanillaRNN(RecurrentCore):
    """Stacked plain recurrent cores with ReLU (not tanh)."""

    def _make_core(self, n_in: int) -> nn.Module:
        return _VanillaCore(n_in, self.hidden_size)

    def _unroll(self, x: Tensor, zero: Tensor) -> Tensor:
        weights: list[Tensor] = []
        core: Any
        for core in self.cores:
            weights += [core.input.weight, core.hidden.weight, core.input.bias, core.hidden.bias]
        out, _ = torch.rnn_relu(
            x, zero, weights, True, len(self.cores), 0.0, self.training, False, True
        )
        return out


def build_model(
    seq_model: str,
    *,
    embedding: Mapping[str, Any],
    model: Mapping[str, Any],
    example_shape: tuple[int, int, int] | None = None,
) -> nn.Module:
    """Build a sequence model with its embedder, initialised from torch's global generator.

    Args:
        seq_model: ``transformer``, ``lstm`` or ``vanilla_rnn``.
        embedding: arguments of :class:`~pytorch_port.model.embedding.InputEmbedder`; a missing or
            null ``num_classes`` is taken from ``model``.
        model: arguments of the sequence model: ``num_classes``, ``num_layers`` and ``num_heads``
            or ``hidden_size``, ``dropout_prob``.
        example_shape: (C, H, W) of image examples.

    Raises:
        KeyError: an unknown ``seq_model``.
        ValueError: values that do not fit together.
    """
    factory = SEQ_MODELS[seq_model]
    embedding = dict(embedding)
    if embedding.get("num_classes") is None:
        embedding["num_classes"] = model["num_classes"]
    with PortableDraws():
        return factory(InputEmbedder(**embedding, example_shape=example_shape), **model)


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}: {value} is not positive; give an integer >= 1")

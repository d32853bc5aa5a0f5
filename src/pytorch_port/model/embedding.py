"""Turns (examples, labels) into the interleaved token sequence of the reference.

Legend: B batch, L items (the last is the query), T tokens (2L-1, or L with concatenated labels),
D example width, E token width (D, or 2D with concatenated labels), K classes, C, H, W image.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

from trainrig.errors import nearest
from trainrig.models.convnet import ConvEncoder
from trainrig.models.init import dense, table
from trainrig.models.resnet import ResNetEncoder

Encoding = Literal["resnet", "conv", "linear", "embedding"]
ENCODINGS: tuple[Encoding, ...] = ("resnet", "conv", "linear", "embedding")
TIME_CONSTANT = 30.0
LABEL_STD = 0.02
EXAMPLE_STD = 1.0


def sinusoid_positions(n_tokens: int, width: int) -> Tensor:
    """Return the position vectors (T, E): ``[sin(all j), cos(all j)]``, halves not interleaved.

    ``angle(t, j) = t / 30**(2j/E)`` for j in 0..E/2-1.

    Raises:
        ValueError: the width is odd.
    """
    if width % 2:
        raise ValueError(f"sinusoid_positions: width {width} is odd; choose an even token width")
    # In the reference's order of float32 operations: its rounding of the frequencies grows with t.
    # Each is computed in float64 and rounded, because NumPy's float32 power, sine and cosine have
    # last bits that depend on the processor's vector instructions.
    single, double = np.float32, np.float64
    exponent = np.arange(0, width, 2, dtype=single) / single(width)
    power = np.power(double(TIME_CONSTANT), exponent.astype(double)).astype(single)
    frequency = single(1.0) / power
    angle = (np.arange(n_tokens, dtype=single)[:, None] * frequency).astype(double)  # (T, E/2)
    return torch.from_numpy(np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(single))


class InputEmbedder(nn.Module):
    """Embed examples and labels, interleave (or concatenate) them and add positions.

    Args:
        num_classes: K, the rows of the label table (and of the example table).
        emb_dim: D.
        example_encoding: ``resnet``; ``conv`` (:class:`~trainrig.models.convnet.ConvEncoder`, not
            the reference's); ``linear`` (pixels in H, W, C order through one dense
            layer); ``embedding`` (integer examples through a table).
        example_shape: (C, H, W) of the images; not needed for ``embedding``.
        flatten_superpixels: see :class:`~trainrig.models.resnet.ResNetEncoder`.
        example_dropout_prob: dropout on the example embeddings, in training **and** evaluation:
            the reference means it as input noise.
        concatenate_labels: one token per item, (example, label); the query's label is an extra
            row of the label table. Otherwise 2L-1 tokens, the query's label left out.
        use_positional_encodings: add :func:`sinusoid_positions` to every token.
        positional_dropout_prob: dropout on the positions, in training only.
        label_init_std: standard deviation of the label table's initial values.

    Source: icl reference, ``modules/embedding.py``.
    """

    def __init__(  # noqa: PLR0913 - one argument per key of the reference's embedding config
        self,
        num_classes: int,
        emb_dim: int = 64,
        example_encoding: Encoding = "resnet",
        *,
        example_shape: tuple[int, int, int] | None = None,
        flatten_superpixels: bool = False,
        example_dropout_prob: float = 0.0,
        concatenate_labels: bool = False,
        use_positional_encodings: bool = True,
        positional_dropout_prob: float = 0.0,
        label_init_std: float = LABEL_STD,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.example_encoding = example_encoding
        self.example_dropout_prob = example_dropout_prob
        self.concatenate_labels = concatenate_labels
        self.use_positional_encodings = use_positional_encodings
        self.positional_dropout_prob = positional_dropout_prob
        self.token_width = 2 * emb_dim if concatenate_labels else emb_dim
        self.encoder = _make_encoder(
            example_encoding, num_classes, emb_dim, example_shape, flatten_superpixels
        )
        self.label_table = table(num_classes + concatenate_labels, emb_dim, label_init_std)
        positions = sinusoid_positions(0, self.token_width) if use_positional_encodings else None
        self.positions: Tensor
        self.register_buffer("positions", positions, persistent=False)

    def _encode_examples(self, examples: Tensor) -> Tensor:
        """Encode (B, L) integers or (B, L, C, H, W) images as (B, L, D)."""
        if self.example_encoding == "embedding":
            h = self.encoder(examples)
        elif self.example_encoding == "linear":
            h = self.encoder(examples.movedim(2, -1).flatten(2))  # pixels in H, W, C order
        else:
            h = self.encoder(examples.flatten(0, 1)).unflatten(0, examples.shape[:2])
        if self.example_dropout_prob:  # also in evaluation
            h = F.dropout(h, self.example_dropout_prob, training=True)
        return h

    def _positions(self, n_tokens: int) -> Tensor:
        """Return (T, E) position vectors, growing the kept table when a longer one is needed."""
        if self.positions.shape[0] < n_tokens:
            self.positions = sinusoid_positions(n_tokens, self.token_width).to(self.positions)
        return self.positions[:n_tokens]

    def forward(self, examples: Tensor, labels: Tensor) -> Tensor:
        """Return tokens (B, T, E).

        Args:
            examples: int64 (B, L) or float (B, L, C, H, W).
            labels: int64 (B, L); the query's, the last one, is never seen.
        """
        h_example = self._encode_examples(examples)  # (B, L, D)
        if self.concatenate_labels:
            unknown = torch.full_like(labels[:, -1:], self.num_classes)
            shown = torch.cat([labels[:, :-1], unknown], dim=1)  # (B, L)
            tokens = torch.cat([h_example, F.embedding(shown, self.label_table)], dim=2)
        else:
            h_label = F.embedding(labels, self.label_table)  # (B, L, D)
            tokens = torch.stack([h_example, h_label], dim=2).flatten(1, 2)[:, :-1]  # (B, T, D)
        if self.use_positional_encodings:
            positions = self._positions(tokens.shape[1])
            if self.positional_dropout_prob and self.training:
                positions = F.dropout(positions.expand_as(tokens), self.positional_dropout_prob)
            tokens = tokens + positions
        return tokens


def _make_encoder(
    encoding: str,
    num_classes: int,
    emb_dim: int,
    example_shape: tuple[int, int, int] | None,
    flatten_superpixels: bool,
) -> nn.Module:
    """Return the module that encodes examples; see :class:`InputEmbedder`."""
    if encoding == "embedding":
        return nn.Embedding.from_pretrained(
            table(num_classes, emb_dim, EXAMPLE_STD).data, freeze=False
        )
    if encoding not in ENCODINGS:
        raise ValueError(
            f"example_encoding: unknown value {encoding!r}{nearest(encoding, ENCODINGS)}; "
            f"choose one of {', '.join(ENCODINGS)}"
        )
    if example_shape is None:
        raise ValueError(
            f"example_shape: missing, and {encoding!r} encodes images; give (channels, height, "
            "width)"
        )
    if encoding == "linear":
        return dense(math.prod(example_shape), emb_dim, corrected=False)
    if encoding == "conv":
        return ConvEncoder(emb_dim, example_shape)
    return ResNetEncoder(emb_dim, example_shape[0], flatten_superpixels=flatten_superpixels)

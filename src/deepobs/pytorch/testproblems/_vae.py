"""The variational auto-encoder for 28x28 images (Kingma, Welling, arXiv:1312.6114)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from deepobs.pytorch.testproblems._layers import (
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    flatten_nhwc,
)
from trainrig.distributed import of_whole_batch

SLOPE = 0.3


class Encoder(nn.Module):
    """(B, 1, 28, 28) → mean and log deviation, (B, n_latent) each."""

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.conv2d = Conv2d(1, 64, 4, stride=2)
        self.conv2d_1 = Conv2d(64, 64, 4, stride=2)
        self.conv2d_2 = Conv2d(64, 64, 4)
        self.dense = Dense(7 * 7 * 64, n_latent)
        self.dense_1 = Dense(7 * 7 * 64, n_latent)
        self.dropout, self.dropout_1, self.dropout_2 = (Dropout(0.2) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mean, s); s is the logarithm of the standard deviation."""
        h = self.dropout(leaky_relu(self.conv2d(x), SLOPE))  # (B, 64, 14, 14)
        h = self.dropout_1(leaky_relu(self.conv2d_1(h), SLOPE))  # (B, 64, 7, 7)
        h = self.dropout_2(leaky_relu(self.conv2d_2(h), SLOPE))  # (B, 64, 7, 7)
        h = flatten_nhwc(h)
        return self.dense(h), 0.5 * self.dense_1(h)


class Decoder(nn.Module):
    """(B, n_latent) → images (B, 28, 28) in [0, 1]."""

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.dense = Dense(n_latent, 24)
        self.dense_1 = Dense(24, 49)
        self.conv2d_transpose = ConvTranspose2d(1, 64, 4, stride=2)
        self.conv2d_transpose_1 = ConvTranspose2d(64, 64, 4, stride=1)
        self.conv2d_transpose_2 = ConvTranspose2d(64, 64, 4, stride=1)
        self.dense_2 = Dense(14 * 14 * 64, 784)
        self.dropout, self.dropout_1 = Dropout(0.2), Dropout(0.2)

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction of latent vectors."""
        h = leaky_relu(self.dense(z), SLOPE)
        h = leaky_relu(self.dense_1(h), SLOPE).reshape(-1, 1, 7, 7)
        h = self.dropout(relu(self.conv2d_transpose(h)))  # (B, 64, 14, 14)
        h = self.dropout_1(relu(self.conv2d_transpose_1(h)))
        h = relu(self.conv2d_transpose_2(h))
        return torch.sigmoid(self.dense_2(flatten_nhwc(h))).reshape(-1, 28, 28)


class VAE(nn.Module):
    """Encoder, sampling, decoder; noise is drawn in evaluation too."""

    def __init__(self, n_latent: int = 8) -> None:
        super().__init__()
        self.encoder = Encoder(n_latent)
        self.decoder = Decoder(n_latent)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (image (B, 28, 28), mean (B, n_latent), log deviation (B, n_latent)).

        Args:
            x: images (B, 1, 28, 28).
            noise: (B, n_latent) standard normal numbers; drawn where absent.
        """
        mean, s = self.encoder(x)
        noise = of_whole_batch(torch.randn_like, mean) if noise is None else noise
        return self.decoder(mean + noise * torch.exp(s)), mean, s

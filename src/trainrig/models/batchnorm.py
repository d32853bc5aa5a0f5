"""BatchNorm whose running statistics are zero-started, debiased moving averages (Haiku's).

``torch.nn.BatchNorm2d(momentum=0.1)`` differs in three ways: it starts at mean 0 and variance 1,
never debiases, and keeps the unbiased variance. Here, with decay 0.9 and after n updates::

    hidden  <- 0.9 hidden + 0.1 (batch mean, biased batch variance)
    average <- hidden / (1 - 0.9**n)

Training normalises with the statistics of the batch, that of all processes where several train one
run, and evaluation with ``average``. C is the channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

from trainrig.distributed import Mean, together

EPS = 1e-5
DECAY = 0.9


class DebiasedBatchNorm(nn.Module):
    """Normalise (N, C, H, W) over N, H and W.

    Buffers: ``hidden`` and ``average`` (2, C), row 0 the mean and row 1 the variance, and
    ``counter``, the number of updates (int64).

    Args:
        channels: C.
        zero_scale: start the scale at 0 instead of 1 (last norm of a residual branch).
    """

    hidden: Tensor
    average: Tensor
    counter: Tensor

    def __init__(self, channels: int, *, zero_scale: bool = False) -> None:
        super().__init__()
        start = torch.zeros if zero_scale else torch.ones
        self.weight = nn.Parameter(start(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("hidden", torch.zeros(2, channels))
        self.register_buffer("average", torch.zeros(2, channels))
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, and update the averages in training mode."""
        if not self.training:
            mean, variance = self.average
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, EPS)
        if together():
            return self._forward_together(x)
        # With momentum 1 the "running" rows receive the batch's own statistics, computed by the
        # fused kernel on the way; its variance is the unbiased one.
        # Two arrays, not one (2, C): under vmap the kernel's rule does not write through views.
        mean, variance = torch.zeros_like(self.hidden[0]), torch.zeros_like(self.hidden[1])
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, EPS)
        n_values = x.numel() // x.shape[1]
        self._average(mean, variance, (n_values - 1) / n_values)
        return y

    def _forward_together(self, x: Tensor) -> Tensor:
        centred, mean, variance = centre_together(x)
        self._average(mean, variance)
        scale = self.weight * torch.rsqrt(variance + EPS)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _average(self, mean: Tensor, variance: Tensor, correction: float = 1.0) -> None:
        """Update the averages; ``correction`` makes the variance the biased one."""
        self.hidden.mul_(DECAY)
        self.hidden[0].add_(mean, alpha=1.0 - DECAY)
        self.hidden[1].add_(variance, alpha=(1.0 - DECAY) * correction)
        self.counter.add_(1)
        self.average.copy_(self.hidden / (1.0 - DECAY**self.counter))


def centre_together(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre this process's share (N, C, H, W) of a batch by the mean of the whole batch.

    The shares are of equal size.

    Returns:
        The centred share, and the batch's mean (C,) and biased variance (C,).
    """
    mean = Mean.apply(x.mean((0, 2, 3)))
    centred = x - mean[:, None, None]
    return centred, mean, Mean.apply(centred.square().mean((0, 2, 3)))

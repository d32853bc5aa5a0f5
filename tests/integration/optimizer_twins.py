"""Slow twins of Adam and AdamW in the papers' notation; tests walk both side by side.

Sources: Kingma & Ba, "Adam", Algorithm 1; Loshchilov & Hutter, "Decoupled Weight Decay
Regularization", Algorithm 2. As in the ICL reference, epsilon is outside the root and, in AdamW,
the decay is multiplied by the scheduled learning rate.
"""

from __future__ import annotations

import torch
from torch import Tensor


class ReferenceAdam:
    """Adam for one tensor, in the tensor's own precision.

    Args:
        theta: the parameter, updated in place.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        eps: added outside the root.
    """

    weight_decay = 0.0

    def __init__(
        self, theta: Tensor, beta_1: float = 0.9, beta_2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self.theta = theta
        self.beta_1, self.beta_2, self.eps = beta_1, beta_2, eps
        self.m = torch.zeros_like(theta)
        self.v = torch.zeros_like(theta)
        self.t = 0

    def step(self, g: Tensor, alpha: float) -> None:
        """Apply one gradient ``g`` with learning rate ``alpha``."""
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * g**2
        m_hat = self.m / (1 - self.beta_1**self.t)
        v_hat = self.v / (1 - self.beta_2**self.t)
        direction = m_hat / (v_hat.sqrt() + self.eps) + self.weight_decay * self.theta
        self.theta.sub_(alpha * direction)


class ReferenceAdamW(ReferenceAdam):
    """Adam with decoupled decay: theta <- theta - alpha·(adam + lambda·theta).

    Args:
        theta: the parameter, updated in place.
        weight_decay: lambda.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        eps: added outside the root.
    """

    def __init__(
        self,
        theta: Tensor,
        weight_decay: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(theta, beta_1, beta_2, eps)
        self.weight_decay = weight_decay

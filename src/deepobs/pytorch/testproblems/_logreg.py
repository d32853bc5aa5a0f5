"""Logistic regression on pixels; everything starts at zero, so the first loss is ln K."""

from __future__ import annotations

from torch import Tensor, nn

from deepobs.pytorch.testproblems._layers import Dense


class LogReg(nn.Module):
    """One dense layer, (B, ...) with ``num_inputs`` pixels → (B, num_outputs)."""

    def __init__(self, num_outputs: int = 10, num_inputs: int = 784) -> None:
        super().__init__()
        self.dense = Dense(num_inputs, num_outputs, init=nn.init.zeros_)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs)."""
        return self.dense(x.flatten(1))

"""The multi-layer perceptron 784 (or as many pixels as there are)-1000-500-100-K."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._initialisers import truncated_normal_
from deepobs.pytorch.testproblems._layers import Dense


class MLP(nn.Module):
    """Three hidden ReLU layers; kernels from a truncated normal of 0.03, biases 0."""

    def __init__(self, num_outputs: int = 10, num_inputs: int = 784) -> None:
        super().__init__()
        init = partial(truncated_normal_, std=0.03)
        self.dense = Dense(num_inputs, 1000, init=init)
        self.dense_1 = Dense(1000, 500, init=init)
        self.dense_2 = Dense(500, 100, init=init)
        self.dense_3 = Dense(100, num_outputs, init=init)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images (B, ...)."""
        h = relu(self.dense(x.flatten(1)))
        h = relu(self.dense_1(h))
        h = relu(self.dense_2(h))
        return self.dense_3(h)

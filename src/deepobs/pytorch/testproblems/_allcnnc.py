"""All-CNN-C (Springenberg et al., "Striving for Simplicity", arXiv:1412.6806, table 1)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._initialisers import glorot_normal_
from deepobs.pytorch.testproblems._layers import Conv2d, Dropout, Padding, numbered


class AllCNNC(nn.Module):
    """Nine convolutions and a spatial mean; ReLU follows each one, so logits are never negative."""

    #: (channels in, out, kernel, stride, padding)
    LAYERS: ClassVar[tuple[tuple[int, int, int, int, Padding], ...]] = (
        (3, 96, 3, 1, "SAME"),
        (96, 96, 3, 1, "SAME"),
        (96, 96, 3, 2, "SAME"),
        (96, 192, 3, 1, "SAME"),
        (192, 192, 3, 1, "SAME"),
        (192, 192, 3, 2, "SAME"),
        (192, 192, 3, 1, "VALID"),
        (192, 192, 1, 1, "SAME"),
    )

    def __init__(self, num_outputs: int = 100) -> None:
        super().__init__()
        layers = (*self.LAYERS, (192, num_outputs, 1, 1, "SAME"))
        for i, (n_in, n_out, kernel, stride, padding) in enumerate(layers):
            layer = Conv2d(
                n_in,
                n_out,
                kernel,
                stride=stride,
                padding=padding,
                init=glorot_normal_,
                bias=0.1,
            )
            self.add_module(numbered("conv2d", i), layer)
        self.dropouts = nn.ModuleDict(
            {"before_0": Dropout(0.2), "before_3": Dropout(0.5), "before_6": Dropout(0.5)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) >= 0 of images (B, 3, 32, 32)."""
        for i in range(len(self.LAYERS) + 1):
            if f"before_{i}" in self.dropouts:
                x = self.dropouts[f"before_{i}"](x)
            x = relu(self.get_submodule(numbered("conv2d", i))(x))
        return x.mean((2, 3))  # (B, K, 6, 6) → (B, K)

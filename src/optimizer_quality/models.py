"""Small residual networks for 32-px images.

``ResNet8`` is the specification's structure: a convolution, three stages of two BasicBlocks with
16, 32 and 64 channels, average pool, linear layer. Counted by the 6n+2 rule that is n = 2, fourteen
weight layers; ``resnet8_6n2`` (n = 1) has eight, ``resnet20`` (n = 3) twenty.

Source: K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, §4.2, with
1x1-convolution shortcuts (option B). Legend: B batch, C channels, H, W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainrig.errors import nearest
from trainrig.models.batchnorm import BatchNorm2d
from trainrig.registry import Registry
from trainrig.seeding import PortableDraws

CHANNELS = (16, 32, 64)
MODELS = Registry("model")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the input (projected where shapes differ)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H/stride, W/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, three stages of BasicBlocks, average pool and a linear layer.

    Args:
        num_classes: K.
        blocks_per_stage: n of the 6n+2 rule.
        in_channels: C of the images.
        precision: ``bf16`` runs the forward pass under bfloat16 autocast; logits are float32.
    """

    def __init__(
        self,
        num_classes: int = 10,
        blocks_per_stage: int = 2,
        in_channels: int = 3,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, CHANNELS[0], 3, 1, 1, bias=False),
            BatchNorm2d(CHANNELS[0]),
            nn.ReLU(inplace=True),
        )
        self.stage1: nn.Sequential
        self.stage2: nn.Sequential
        self.stage3: nn.Sequential
        n_in = CHANNELS[0]
        for stage, n_out in enumerate(CHANNELS, start=1):
            blocks = nn.Sequential()
            for block in range(blocks_per_stage):
                blocks.append(BasicBlock(n_in, n_out, 2 if stage > 1 and block == 0 else 1))
                n_in = n_out
            self.add_module(f"stage{stage}", blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(n_in, num_classes)

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations that ``activations`` can return, from input to output."""
        blocks = [
            f"stage{stage}.{block}"
            for stage in range(1, len(CHANNELS) + 1)
            for block in range(len(list(self.get_submodule(f"stage{stage}").children())))
        ]
        return ["stem", *blocks, "pool", "fc"]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            x = self.stem(x)
            x = self.stage3(self.stage2(self.stage1(x)))
            return self.fc(self.pool(x)).float()

    def activations(self, x: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return intermediate activations by name, in the network's order.

        Args:
            x: images (B, C, H, W).
            names: from ``layer_names``; default all.

        Raises:
            KeyError: an unknown name.
        """
        known = self.layer_names
        wanted = list(known if names is None else names)
        for name in wanted:
            if name not in known:
                raise KeyError(f"activation {name!r}{nearest(name, known)} (known: {known})")
        found: dict[str, Tensor] = {}
        handles = [
            self.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: found.update({name: output})
            )
            for name in wanted
        ]
        try:
            self(x)
        finally:
            for handle in handles:
                handle.remove()
        return {name: found[name] for name in known if name in found}


@MODELS.register("resnet8")
class ResNet8(ResNet):
    """The specification's network: 175,258 parameters for ten classes and RGB images."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, precision: str = "fp32"
    ) -> None:
        super().__init__(num_classes, 2, in_channels, precision)


@MODELS.register("resnet8_6n2")
class ResNet8By6n2(ResNet):
    """One block per stage, eight weight layers: 78,042 parameters."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, precision: str = "fp32"
    ) -> None:
        super().__init__(num_classes, 1, in_channels, precision)


@MODELS.register("resnet20")
class ResNet20(ResNet):
    """Three blocks per stage, twenty weight layers: 272,474 parameters."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, precision: str = "fp32"
    ) -> None:
        super().__init__(num_classes, 3, in_channels, precision)


def build_model(
    name: str, num_classes: int, *, in_channels: int, precision: str, channels_last: bool
) -> ResNet:
    """Build a registered network on the CPU, with kernels in the asked memory format."""
    with PortableDraws():
        model = MODELS[name](num_classes=num_classes, in_channels=in_channels, precision=precision)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

"""What is left of a network's predictions on shifted images.

Four corruptions at five strengths each, all on pixel values in 0..1, seeded. The idea, not the
exact images, is that of D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", arXiv:1903.12261.

Legend: N images, C channels, H, W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig.seeding import PortableDraws

N_STRENGTHS = 5


def noise(images: Tensor, strength: int) -> Tensor:
    """Add normal noise of standard deviation 0.02, 0.04, 0.08, 0.12, 0.18."""
    sd = (0.02, 0.04, 0.08, 0.12, 0.18)[strength - 1]
    with PortableDraws():
        drawn = torch.empty(images.shape).normal_(generator=torch.Generator().manual_seed(strength))
    return (images + sd * drawn.to(images)).clamp(0, 1)


def blur(images: Tensor, strength: int) -> Tensor:
    """Convolve with a Gaussian of standard deviation 0.5, 0.75, 1, 1.5, 2 pixels."""
    sd = (0.5, 0.75, 1.0, 1.5, 2.0)[strength - 1]
    reach = math.ceil(3 * sd)
    weights = [math.exp(-(x**2) / (2 * sd**2)) for x in range(-reach, reach + 1)]
    kernel = torch.tensor([w / sum(weights) for w in weights], dtype=images.dtype)
    channels = images.shape[1]
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)


def contrast(images: Tensor, strength: int) -> Tensor:
    """Draw every value towards the image's mean, leaving 0.75, 0.5, 0.4, 0.3, 0.15 of it."""
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[strength - 1]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + kept * (images - mean)


def rotation(images: Tensor, strength: int) -> Tensor:
    """Turn about the centre by 5, 10, 20, 30, 45 degrees, bilinear, edges reflected."""
    angle = math.radians((5, 10, 20, 30, 45)[strength - 1])
    matrix = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]],
        dtype=images.dtype,
    )
    places = F.affine_grid(
        matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False
    )
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)


#: Name → images (N, C, H, W) in 0..1 and a strength 1..5 to images of that kind.
CORRUPTIONS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "rotation": rotation,
}

"""Images that excite a unit: activation maximisation from noise.

``x* = argmax_x [a_k(x) - l2 mean(x²) - tv TV(x)]``, TV the mean squared difference of neighbours,
by gradient ascent with random shifts. Source:
D. Erhan et al., "Visualizing Higher-Layer Features of a Deep Network" (2009); shifts and total
variation: A. Mordvintsev et al., "Inceptionism" (2015), C. Olah et al., Distill (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer_quality.models import ResNet
from trainrig.seeding import PortableDraws

L2 = 0.1
TOTAL_VARIATION = 1.0
SHIFT_PX = 2


def maximise_activation(
    model: ResNet,
    shape: tuple[int, int, int],
    *,
    layer: str = "fc",
    units: int = 10,
    n_steps: int = 96,
    lr: float = 0.08,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draw one image per unit of a layer, all at once.

    Args:
        model: left as it is, in evaluation mode.
        shape: (C, H, W) of an image.
        layer: a name in ``model.layer_names``; a map's activation is its mean over pixels.
        units: the first so many units, U.
        n_steps: ascent steps (Adam).
        lr: step size in normalised pixel values.
        seed: of the noise and the shifts.

    Returns:
        Normalised images (U, C, H, W), and what each unit answers to its own image (U,).
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    with PortableDraws():
        noise = torch.empty(units, *shape).normal_(generator=generator)
    x = (0.1 * noise).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(n_steps):
        shifts = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2,), generator=generator).tolist()
        answers = _answers(model, x.roll(shifts, dims=(2, 3)), layer, units)
        rows, columns = x.diff(dim=2), x.diff(dim=3)
        roughness = _mean_square(rows) + _mean_square(columns)
        loss = -answers.sum() + L2 * _mean_square(x) + TOTAL_VARIATION * roughness
        (x.grad,) = torch.autograd.grad(loss, [x])
        optimizer.step()
    with torch.no_grad():
        return x.detach(), _answers(model, x, layer, units)


def _mean_square(x: Tensor) -> Tensor:
    """Return the mean square within each image, summed over images."""
    return x.square().flatten(1).mean(dim=1).sum()


def _answers(model: ResNet, x: Tensor, layer: str, units: int) -> Tensor:
    """Return what unit i of the layer answers to image i, (U,)."""
    value = model.activations(x, [layer])[layer]
    own = value[torch.arange(units), torch.arange(units)]  # (U,) or (U, h, w)
    return own.flatten(1).mean(dim=1) if own.ndim > 1 else own

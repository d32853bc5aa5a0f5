"""Speed of inference and of training against the reference's architecture run eagerly.

A step is one batch of patterns: times ``BATCH_SIZE`` it is patterns. Inference includes what the
stitching does; the yardstick is the same network with the same weights, NCHW, whole patches, as the
reference evaluates it, followed by the same stitching.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ptycho_torch.config_params import DataConfig, ModelConfig
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.network.assembly import Stitcher, crop_centre
from ptycho_torch.network.generator import Generator
from ptycho_torch.network.pinn import pinn_loss
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.recon.inference import FrameStream
from roofline import Work
from timing import Case, Cases, Loop, Options, training_loop

BATCH_SIZE = {"cpu": 32, "cuda": 1024}
SIZE = 64


def cases(options: Options) -> Cases:
    """Inference at 64x64 for both usual widths, and a training step."""
    return {
        "inference f=1": partial(_inference, 1, options),
        "inference f=2": partial(_inference, 2, options),
        "training f=1": partial(_training, 1, options),
    }


def build(scale: int) -> PtychoPINN_Lightning:
    """An untrained network of gridsize 1; speed does not depend on the weights."""
    torch.manual_seed(0)
    model = ModelConfig(n_filters_scale=scale, C_model=1, C_forward=1)
    data = DataConfig(N=SIZE, C=1, grid_size=(1, 1))
    return PtychoPINN_Lightning(model, data)


def inputs(count: int, device: torch.device) -> tuple[torch.Tensor, np.ndarray]:
    """Random photon amplitudes (B, 1, N, N) and positions (B, 1, 2) of a raster, 6 px apart."""
    images = torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    side = int(np.ceil(np.sqrt(count)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 1, 2)
    return images.to(device), grid[:count] * 6.0


def eager_reference(scale: int, model: PtychoPINN_Lightning, device: torch.device) -> Generator:
    """The reference's architecture with the model's weights in torch's default layout."""
    net = Generator(SIZE, 1, scale, amp_activation=model.net.config.amp_activation)
    net.load_state_dict(model.net.generator.state_dict())
    return net.to(device).to(memory_format=torch.contiguous_format).eval()


def _inference(scale: int, options: Options) -> Case:
    device = options.device
    model = build(scale)
    images, coords = inputs(BATCH_SIZE[device.type], device)
    place = torch.from_numpy(coords.reshape(-1, 2)).to(device)
    probe = np.ones((1, SIZE, SIZE), np.complex64)
    grid = Grid.around(coords.reshape(-1, 2), SIZE)
    stream = FrameStream(model, grid, probe, 1.0, device=device)
    net = eager_reference(scale, model, device)
    stitcher = Stitcher((0.0, 0.0), grid.shape, (-grid.y0, -grid.x0), device=device)

    def ours(steps: int) -> None:
        for _ in range(steps):
            stream.add_images(images, coords)

    @torch.inference_mode()
    def reference(steps: int) -> None:
        for _ in range(steps):
            stitcher.add(crop_centre(net(images)[:, 0], stream.trim), place, stream.weight)

    flops = 2.0 * len(images) * multiply_adds(net)
    parameters = sum(p.numel() for p in net.parameters())
    moved = 4.0 * (parameters + 2 * images.numel())
    note = f"times {len(images)} patterns a step"
    against = {"reference's network, eager": reference}
    return Case(loop=ours, against=against, steps=2, work=Work(flops, moved), note=note)


def multiply_adds(net: Generator) -> int:
    """Multiply-adds of the whole generator for one pattern."""
    total = 0

    def count(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * out.shape[-2] * out.shape[-1]

    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    with torch.inference_mode():
        net(torch.zeros(1, 1, SIZE, SIZE, device=next(net.parameters()).device))
    for hook in hooks:
        hook.remove()
    return total


def _training(scale: int, options: Options) -> Case:
    images, _ = inputs(16, options.device)
    relative = torch.zeros(len(images), 1, 2, device=options.device)
    model = build(scale).to(options.device)
    net = model.net
    plain = eager_reference(scale, model, options.device)

    def ours() -> torch.Tensor:
        return pinn_loss(net(images, relative), images, "poisson")

    def reference() -> torch.Tensor:
        patches = plain(images * torch.exp(-net.log_scale))
        return pinn_loss(net.diffract(patches), images, "poisson")

    note = f"times {len(images)} patterns a step"
    against = {"reference's network, eager": _steps(reference, plain)}
    return Case(loop=_steps(ours, net.generator), against=against, steps=2, note=note)


def _steps(loss: Callable[[], torch.Tensor], trained: Generator) -> Loop:
    return training_loop(loss, torch.optim.Adam(trained.parameters(), 1e-3))

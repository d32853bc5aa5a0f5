"""The generator's shortcuts against its plain path."""

from __future__ import annotations

import pytest
import torch

from ptycho_torch.network.generator import Generator
from ptycho_torch.network.pinn import supervised_loss

SWITCHES = [
    {},
    {"pad_object": False},
    {"probe_big": False},
    {"gridsize": 2, "amp_activation": "softplus"},
    {"gridsize": 2, "object_big": False},
    {"size": 128},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_centre_alone_is_the_centre_of_whole_patches(switches):
    net = Generator(**{"size": 64, "gridsize": 1, "scale": 1, **switches}).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # biases too, so that every branch is alive
    side = switches.get("size", 64)
    x = torch.rand(2, switches.get("gridsize", 1) ** 2, side, side)
    with torch.inference_mode():
        whole, centre = net(x), net.centre(x)
    inner = slice(side // 4, 3 * side // 4)
    assert whole[..., : side // 4, :].abs().max() > 0 or not switches.get("probe_big", True)
    torch.testing.assert_close(centre, whole[..., inner, inner], rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["swish", "softplus", "relu", "sigmoid"])
def test_a_new_network_lets_light_through(activation):
    torch.manual_seed(0)
    net = Generator(64, 1, 1, amp_activation=activation)
    with torch.no_grad():
        amplitude = net(torch.rand(2, 1, 64, 64)).abs()
    start = 0.5 if activation == "sigmoid" else 1.0
    assert amplitude[..., 16:-16, 16:-16].mean() == pytest.approx(start, abs=0.15)
    border = torch.cat([amplitude[..., :16, :], amplitude[..., -16:, :]])
    assert border.mean() == pytest.approx(0 if activation == "sigmoid" else 1, abs=0.15)


def test_dark_patches_leave_the_supervised_gradient_finite():
    patches = torch.tensor([0j, 1e-30 + 1e-30j, 1e-20 + 0j, 1e-4j, 1 + 0j], requires_grad=True)
    loss = supervised_loss(patches, torch.tensor([1 + 0j, 1 + 0j, 1 + 1j, 1 + 0j, 1j]))
    loss.backward()
    assert torch.isfinite(torch.view_as_real(patches.grad)).all()
    assert patches.grad[4].imag == pytest.approx(-4 / 5)  # towards the label's phase

"""Activations at a kink: found, flipped, and told from a gradient alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from pytorch_port.parity.kinks import ExactGradients, KinkWatch


def toy(shift: float):
    """Return a run with a relu's input at ``shift``, and two pixels of a window as far apart."""
    weight = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64, requires_grad=True)
    images = torch.tensor([[0.5, 0.25], [0.1, 0.7]], dtype=torch.float64)

    def run(watch: KinkWatch):
        with watch:
            y = F.relu(weight[0] * images - 0.5 + shift)
            pixels = torch.stack([weight[1], weight[2] + 5.0 - shift])  # 2, 2 - shift
            window = torch.stack([pixels, pixels - 5.0])
            z = F.max_pool2d(window[None, None], 2, 2)
        return 3 * y.sum() + 2 * z.sum(), {"weight": weight}

    return run


def gradient(run, flipped=()):
    loss, parameters = run(KinkWatch(flipped))
    return torch.autograd.grad(loss, [parameters["weight"]])[0]


@pytest.mark.parametrize("shift", [-3e-7, 3e-7])
def test_a_flip_gives_the_gradient_of_the_other_side(shift):
    exact, beyond = ExactGradients(toy(shift)), gradient(toy(-shift))
    assert [kink.kind for kink in exact.kinks] == ["relu", "max_pool2d"]
    assert [kink.distance for kink in exact.kinks] == pytest.approx([shift, 3e-7])
    assert not torch.equal(exact.plain["weight"], beyond)
    torch.testing.assert_close(gradient(toy(shift), exact.kinks), beyond, rtol=1e-5, atol=0)
    gained = exact.plain["weight"] + sum(share["weight"] for share in exact.shares.values())
    torch.testing.assert_close(gained, beyond, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shift", [0.0, 1e-3, -1e-3])
def test_only_elements_within_rounding_of_a_kink_count(shift):
    assert not ExactGradients(toy(shift)).kinks  # equal pixels give the same gradient


def test_the_kinks_behind_a_norm_are_found():
    exact = ExactGradients(toy(3e-7))
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)  # or both pixels give one norm
    for kink, share in exact.shares.items():
        wanted = float((scale * (exact.plain["weight"] + share["weight"])).norm())

        def deviation(gradients, wanted=wanted):
            return abs(float((scale * gradients["weight"]).norm()) / wanted - 1)

        found, flipped = exact.closest(deviation, 1e-5)
        assert flipped == (kink,)
        assert deviation(found) <= 1e-5
    found, flipped = exact.closest(lambda gradients: 1.0, 1e-5)  # nothing helps
    assert found == exact.plain
    assert not flipped

"""torch's Adam and AdamW beside the papers' formulas, 100 steps, compared after each."""

from __future__ import annotations

import pytest
import torch
from optimizer_twins import ReferenceAdam, ReferenceAdamW
from torch.testing import assert_close

from trainrig.optim import make_optimizer
from trainrig.optim.schedules import warmup_rsqrt


@pytest.mark.parametrize(
    ("name", "weight_decay"), [("adam", None), ("adamw", 0.0), ("adamw", 0.01), ("adamw", 1.0)]
)
def test_walks_beside_its_twin(name, weight_decay):
    parameter = torch.nn.Parameter(torch.randn(5, 4, dtype=torch.float64))
    theta = parameter.detach().clone()
    if weight_decay is None:
        kwargs, twin = {}, ReferenceAdam(theta)
    else:
        kwargs, twin = {"weight_decay": weight_decay}, ReferenceAdamW(theta, weight_decay)
    optimizer = make_optimizer(name, [parameter], lr=0.0, **kwargs)
    schedule = warmup_rsqrt(0.05, 7)
    for step in range(100):
        gradient = torch.randn_like(theta) * 10.0 ** (step % 5 - 3)
        parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = schedule(step)
        optimizer.step()
        twin.step(gradient, schedule(step))
        assert_close(parameter.detach(), theta, rtol=1e-12, atol=1e-14)


def test_a_different_epsilon_placement_would_be_seen():
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    twin = ReferenceAdam(parameter.detach().clone(), eps=1e-3)
    optimizer = make_optimizer("adam", [parameter], lr=0.1, eps=1e-8)
    parameter.grad = torch.full((3,), 1e-3, dtype=torch.float64)
    optimizer.step()
    twin.step(parameter.grad, 0.1)
    assert (parameter.detach() - twin.theta).abs().max() > 0.01

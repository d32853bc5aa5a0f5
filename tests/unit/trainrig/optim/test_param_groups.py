"""Parameter groups as data: every parameter taken once, every rule useful."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainrig.optim import make_optimizer
from trainrig.optim.param_groups import GroupRule, decay_matrices, make_groups


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_matrices_decay_and_the_rest_does_not(net):
    groups, counts = make_groups(net.named_parameters(), decay_matrices(0.1))
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert [c.n_tensors for c in counts] == [2, 4]
    assert sum(c.n_values for c in counts) == sum(p.numel() for p in net.parameters())
    assert "2 tensors, 20 parameters, weight_decay=0.1" in str(counts[0])
    optimizer = make_optimizer("adamw", groups, lr=0.1)
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


def test_first_matching_rule_wins(net):
    rules = [GroupRule(r"^2\.", {"lr_scale": 0.1}), GroupRule()]
    groups, _ = make_groups(net.named_parameters(), rules)
    assert [len(g["params"]) for g in groups] == [2, 4]
    assert groups[0]["lr_scale"] == 0.1


def test_frozen_parameters_are_left_out(net):
    net[0].weight.requires_grad_(False)
    groups, _ = make_groups(net.named_parameters(), [GroupRule()])
    assert len(groups[0]["params"]) == 5


def test_uncovered_parameters_useless_rules_and_bad_patterns_raise(net):
    with pytest.raises(ValueError, match=r"no rule takes '0\.bias'"):
        make_groups(net.named_parameters(), [GroupRule("weight")])
    with pytest.raises(ValueError, match="rule 'blocks' takes no parameter"):
        make_groups(net.named_parameters(), [GroupRule("blocks"), GroupRule()])
    with pytest.raises(ValueError, match="bad pattern"):
        make_groups(net.named_parameters(), [GroupRule("(")])


def test_groups_reach_every_parameter_of_a_step(net):
    groups, _ = make_groups(net.named_parameters(), decay_matrices(0.1))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = make_optimizer("adamw", groups, lr=0.1)
    net(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(b, p) for b, p in zip(before, net.parameters(), strict=True))

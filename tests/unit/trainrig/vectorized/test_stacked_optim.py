"""A stacked optimizer walks with the members' own; penalties are those of the members."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from trainrig.loop import train_steps
from trainrig.optim.penalties import l2_penalty
from trainrig.vectorized import Stack, StackedOptimizer, stacked_l2_penalty
from trainrig.vectorized.optim import ELEMENTWISE

LRS, DECAYS = (0.03, 0.01, 0.003), (0.0, 0.1, 0.5)
CASES = {
    **{c.__name__: (c, {}) for c in ELEMENTWISE},
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "fused AdamW": (torch.optim.AdamW, {"fused": True}),
    "fused SGD": (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
    "foreach AMSGrad": (torch.optim.Adam, {"amsgrad": True, "foreach": True}),
}


def make_members() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)) for _ in LRS]


def make_optimizers(members, case):
    cls, options = CASES[case]
    settings = [{"lr": lr, "weight_decay": decay} for lr, decay in zip(LRS, DECAYS, strict=True)]
    if cls is torch.optim.Rprop:
        settings = [{"lr": lr} for lr in LRS]
    return [cls(m.parameters(), **own, **options) for m, own in zip(members, settings, strict=True)]


def batch(step: int) -> torch.Tensor:
    return torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(step))


def loss_fn(model, x):
    out = model(x)
    return out.sub(1).square().flatten(out.ndim - 2).mean(-1), None


def train(model, optimizer, select, start, stop):
    batches = (batch(k)[select] for k in range(start, stop))
    schedule = [tuple(lr / (1 + k) for lr in LRS) for k in range(stop)]
    rates = (lambda k: schedule[k]) if select == slice(None) else (lambda k: schedule[k][select])
    for record in train_steps(
        model, optimizer, batches, loss_fn, schedule=rates, total_steps=stop, start_step=start
    ):
        last = record
    return last


@pytest.mark.parametrize("case", CASES)
def test_follows_the_members_optimizers(case):
    members = make_members()
    alone = copy.deepcopy(members)
    stack, optimizers = Stack(members), make_optimizers(members, case)
    joint = StackedOptimizer(stack, optimizers)
    record = train(stack, joint, slice(None), 0, 20)
    assert record.loss.shape == (3,)
    assert record.lr == tuple(lr / 20 for lr in LRS)
    joint.write_members()
    for r, optimizer in enumerate(make_optimizers(alone, case)):
        own = train(alone[r], optimizer, r, 0, 20)
        # Equal arithmetic on gradients that differ by rounding; Rprop looks at signs alone.
        assert_close(record.loss[r], own.loss, rtol=1e-5, atol=1e-6)
        for actual, expected in zip(members[r].parameters(), alone[r].parameters(), strict=True):
            assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        actual, expected = optimizers[r].state_dict(), optimizer.state_dict()
        assert actual["param_groups"] == expected["param_groups"]
        assert actual["state"].keys() == expected["state"].keys()
        for mine, theirs in zip(actual["state"].values(), expected["state"].values(), strict=True):
            assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_goes_on_from_the_members_state(case):
    """Written to ordinary state dicts, and read from them, training ends in the same bits."""
    members = make_members()
    fresh = copy.deepcopy(members)
    stack, optimizers = Stack(members), make_optimizers(members, case)
    joint = StackedOptimizer(stack, optimizers)
    train(stack, joint, slice(None), 0, 6)
    joint.write_members()
    saved = copy.deepcopy(
        [(m.state_dict(), o.state_dict()) for m, o in zip(members, optimizers, strict=True)]
    )
    train(stack, joint, slice(None), 6, 10)

    resumed = make_optimizers(fresh, case)
    for member, optimizer, (weights, state) in zip(fresh, resumed, saved, strict=True):
        member.load_state_dict(weights)
        optimizer.load_state_dict(state)
    again = Stack(fresh)
    train(again, StackedOptimizer(again, resumed), slice(None), 6, 10)
    assert torch.equal(again.flat, stack.flat)


def test_a_broken_member_is_frozen_and_the_others_go_on():
    members = make_members()
    alone = copy.deepcopy(members)
    stack, optimizers = Stack(members), make_optimizers(members, "AdamW")
    joint = StackedOptimizer(stack, optimizers)

    def broken(model, x):
        losses, _ = loss_fn(model, x)
        return losses * torch.tensor([1.0, float("nan"), 1.0]), None

    kept = []
    for k in range(3):
        joint.zero_grad()
        losses, _ = (loss_fn if k == 0 else broken)(stack, batch(k))
        losses.sum().backward()
        joint.step()
        joint.freeze(losses.isfinite().logical_not().nonzero().flatten().tolist())
        kept.append(stack.flat[1].detach().clone())
    assert joint.frozen == [False, True, False]
    assert_close(kept[2], kept[1], rtol=0, atol=0, equal_nan=True)
    optimizer = make_optimizers(alone, "AdamW")[0]
    for k in range(3):
        optimizer.zero_grad()
        loss_fn(alone[0], batch(k)[0])[0].backward()
        optimizer.step()
    for actual, expected in zip(members[0].parameters(), alone[0].parameters(), strict=True):
        assert_close(actual, expected)


def test_penalties_are_those_of_the_members():
    members = make_members()
    with torch.no_grad():
        members[0][0].bias.zero_()  # the norm's gradient at 0 is 0
    stack = Stack(members)
    squares, norms = torch.tensor([0.0, 0.2, 0.0]), torch.tensor([0.3, 0.0, 0.0])
    penalty = stacked_l2_penalty(stack, squares, norms)
    penalty.sum().backward()
    stack.expose_gradients()
    gradients = [[p.grad.clone() for p in m.parameters()] for m in members]
    for r, mode, decay in ((0, "sum_norms", 0.3), (1, "sum_squares", 0.2)):
        expected = l2_penalty(members[r].parameters(), mode, decay)
        assert_close(penalty[r], expected)
        wanted = torch.autograd.grad(expected, list(members[r].parameters()))
        assert_close(gradients[r], list(wanted))
    assert penalty[2] == 0
    assert all(g.count_nonzero() == 0 for g in gradients[2])


def test_optimizers_that_cannot_be_stacked_are_refused():
    members = make_members()
    stack = Stack(members)
    with pytest.raises(ValueError, match="LBFGS; give members one class of SGD, Adam"):
        StackedOptimizer(stack, [torch.optim.LBFGS(m.parameters()) for m in members])
    mixed = [torch.optim.SGD(members[0].parameters()), *make_optimizers(members, "Adam")[1:]]
    with pytest.raises(ValueError, match="Adam, SGD; give"):
        StackedOptimizer(stack, mixed)
    with pytest.raises(ValueError, match="2 optimizers of 3 members"):
        StackedOptimizer(stack, make_optimizers(members, "SGD")[:2])
    with pytest.raises(ValueError, match="all trained parameters"):
        StackedOptimizer(stack, make_optimizers(members[::-1], "SGD"))

"""A stack of modules does what its members do alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import nn
from torch.testing import assert_close

from trainrig.loop import train_steps
from trainrig.models.batchnorm import DebiasedBatchNorm
from trainrig.vectorized import Stack, StackedOptimizer


class Net(nn.Module):
    """A table, a layer without a multiple of 16 values, a scalar parameter and a head."""

    def __init__(self, n_out: int = 5, n_hidden: int = 7) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(n_out, 3))
        self.hidden = nn.Linear(3, n_hidden)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.head = nn.Linear(n_hidden, n_out)
        self.register_buffer("offset", torch.full((), 0.25))

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        x = F.embedding(index, self.table)
        return self.head(torch.tanh(self.hidden(x)) * self.scale) + self.offset


def make(n: int, **options: int) -> list[Net]:
    return [Net(**options) for _ in range(n)]


def copies(members: list[nn.Module]) -> list[nn.Module]:
    import copy

    return [copy.deepcopy(member) for member in members]


def test_outputs_and_gradients_are_those_of_the_members():
    members = make(3)
    alone = copies(members)
    stack = Stack(members)
    index = torch.randint(5, (3, 8))
    stack(index).square().mean(dim=(1, 2)).sum().backward()
    stack.expose_gradients()
    for net, member, x in zip(alone, members, index, strict=True):
        net(x).square().mean().backward()
        for (name, expected), actual in zip(
            net.named_parameters(), member.parameters(), strict=True
        ):
            assert_close(actual, expected, rtol=0, atol=0, msg=name)
            assert_close(actual.grad, expected.grad, msg=name)


def test_shared_inputs():
    members = make(2)
    stack, index = Stack(members), torch.randint(5, (8,))
    out = stack(index, in_dims=None)
    assert_close(out, torch.stack([member(index) for member in members]))


def test_members_are_views_of_the_stack():
    members = make(2)
    stack = Stack(members)
    with torch.no_grad():
        stack.flat[1].zero_()
        assert all(p.count_nonzero() == 0 for p in members[1].parameters())
        members[0].load_state_dict({k: v + 1 for k, v in Net().state_dict().items()})
    values = stack.stacked_parameters()
    for name, parameter in members[0].named_parameters():
        assert_close(values[name][0], parameter, rtol=0, atol=0)
        assert parameter.is_contiguous()


def test_each_member_has_its_own_buffers_and_constants():
    members = make(2)
    members[1].offset += 1
    members[1].scale.requires_grad_(False)
    members[0].scale.requires_grad_(False)
    expected = [member(torch.arange(5)) for member in members]
    stack = Stack(members)
    assert "scale" not in stack.slots
    assert_close(stack(torch.arange(5), in_dims=None), torch.stack(expected))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, DebiasedBatchNorm])
def test_batch_norm_updates_every_member_s_averages(norm):
    members = [nn.Sequential(nn.Conv2d(2, 4, 3), norm(4)) for _ in range(3)]
    alone = copies(members)
    stack = Stack(members)
    for _ in range(3):
        images = torch.randn(3, 6, 2, 8, 8)
        stack.train()
        out = stack(images)
        for r, net in enumerate(alone):
            assert_close(out[r], net.train()(images[r]), rtol=1e-5, atol=1e-5)
    for member, net in zip(members, alone, strict=True):
        for (name, expected), actual in zip(
            net.state_dict().items(), member.state_dict().values(), strict=True
        ):
            assert_close(actual, expected, rtol=1e-5, atol=1e-6, msg=name)
        assert_close(member.eval()(images[0]), net.eval()(images[0]), rtol=1e-5, atol=1e-5)


def test_padded_members_keep_their_shapes_and_zero_padding():
    members = [Net(5), Net(3)]
    alone = copies(members)
    stack = Stack(members, pad=True)
    assert [tuple(m.head.weight.shape) for m in members] == [(5, 7), (3, 7)]
    index = torch.tensor([0, 1, 2])
    out = stack(index, in_dims=None)  # (2, 3, 5)
    assert_close(out[1, :, :3], alone[1](index))
    (out[0].square().sum() + out[1, :, :3].square().sum()).backward()
    padding = stack.slots["head.weight"].trimmed(stack.flat.grad[1], torch.empty(5, 7))[3:]
    assert padding.count_nonzero() == 0
    stack.expose_gradients()
    alone[1](index).square().sum().backward()
    assert_close(members[1].head.weight.grad, alone[1].head.weight.grad)


def test_dropout_differs_between_members_and_follows_the_seed():
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x * self.weight, 0.5, self.training)

    stack = Stack([Dropped(), Dropped()])
    x = torch.ones(64)
    torch.manual_seed(1)
    first = stack(x, in_dims=None)
    torch.manual_seed(1)
    assert_close(stack(x, in_dims=None), first, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(*stack(x, in_dims=None, randomness="same"))
    assert_close(stack.eval()(x, in_dims=None), torch.ones(2, 64))


@pytest.mark.parametrize(
    ("members", "pad", "message"),
    [
        ([], False, "no members"),
        ([Net(5), Net(3)], False, r"'table' has shapes \(3, 3\) and \(5, 3\); they must be equal$"),
        ([Net(5, 7), Net(5, 6)], True, "'head.weight' has shapes"),
        ([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)], False, "other parameters"),
        ([nn.ReLU(), nn.ReLU()], False, "other parameters, or none"),
        ([nn.Linear(2, 2), nn.Linear(2, 2).double()], False, "one type and one device"),
    ],
)
def test_members_that_do_not_fit_are_refused(members, pad, message):
    with pytest.raises(ValueError, match=message):
        Stack(members, pad=pad)


def test_training_goes_on_in_training_mode_after_a_member_was_evaluated():
    members = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    stack = Stack(members)
    optimizer = StackedOptimizer(stack, [torch.optim.SGD(m.parameters(), lr=0.1) for m in members])
    batches = (torch.randn(2, 8, 3) for _ in range(2))
    modes = []
    for _ in train_steps(
        stack,
        optimizer,
        batches,
        lambda stack, x: (stack(x).square().mean(dim=(1, 2)), None),
        schedule=None,
        total_steps=2,
    ):
        modes.append([module.training for member in members for module in member.modules()])
        members[1].eval()
        assert not stack.training
    assert modes == [[True] * 6] * 2

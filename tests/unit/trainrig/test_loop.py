"""The loop: the arithmetic of a hand-written one, learning rates as pure functions of the step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainrig.loop import every, train_steps
from trainrig.updates import make_update


def loss_fn(model, batch):
    x, y = batch
    prediction = model(x)
    return nn.functional.mse_loss(prediction, y), prediction.detach()


def batches(n, size=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator))
        for _ in range(n)
    ]


def make(lr=0.1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def train(model, optimizer, data, **options):
    options = {"schedule": lambda done: 0.1 / (1 + done), "total_steps": 6} | options
    return list(train_steps(model, optimizer, data, loss_fn, **options))


def test_equals_a_plain_loop_bit_for_bit():
    model, optimizer = make()
    records = train(model, optimizer, batches(6))
    twin, plain = make()
    for step, batch in enumerate(batches(6)):
        plain.param_groups[0]["lr"] = 0.1 / (1 + step)
        plain.zero_grad()
        loss, _ = loss_fn(twin, batch)
        loss.backward()
        plain.step()
        assert torch.equal(records[step].loss, loss.detach())
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)
    assert [r.step for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r.lr for r in records] == [0.1 / (1 + done) for done in range(6)]


def test_two_halves_equal_the_whole():
    whole, half = make(), make()
    train(*whole, batches(6))
    train(*half, batches(3), total_steps=3)
    records = train(*half, batches(6)[3:], start_step=3)
    assert [r.step for r in records] == [4, 5, 6]
    for one, two in zip(whole[0].parameters(), half[0].parameters(), strict=True):
        assert torch.equal(one, two)


def test_accumulation_is_the_mean_gradient():
    data = batches(4, size=8)
    split = [(x[i : i + 4], y[i : i + 4]) for x, y in data for i in (0, 4)]
    whole, parts = make(), make()
    full = train(*whole, data, total_steps=4)
    accumulated = train(*parts, split, total_steps=4, accumulate=2)
    for one, two in zip(whole[0].parameters(), parts[0].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)  # only the order of sums differs
    torch.testing.assert_close(full[-1].loss, accumulated[-1].loss)
    assert accumulated[-1].output.shape == (4, 1)


def test_group_scales_follow_the_schedule():
    model, _ = make()
    groups = [
        {"params": model[0].parameters(), "lr_scale": 0.0},
        {"params": model[2].parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    before = model[0].weight.clone()
    train(model, optimizer, batches(1), total_steps=1)
    assert torch.equal(model[0].weight, before)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]


def test_gradients_stay_for_the_caller_and_training_mode_returns():
    model, optimizer = make()
    for _ in train_steps(
        model, optimizer, batches(2), loss_fn, schedule=lambda _: 0.1, total_steps=2
    ):
        assert model.training
        assert all(p.grad is not None for p in model.parameters())
        model.eval()


def test_data_that_end_too_early_are_an_error_and_no_batch_is_wasted():
    model, optimizer = make()
    with pytest.raises(ValueError, match="data ended after step 2 of 6"):
        train(model, optimizer, batches(2))
    stream = iter(batches(5))
    train(model, optimizer, stream, total_steps=4)
    assert len(list(stream)) == 1
    assert train(model, optimizer, [], start_step=6) == []


def test_every():
    assert [s for s in range(1, 8) if every(3, s, 7)] == [3, 6, 7]
    assert [s for s in range(1, 8) if every(0, s)] == []
    assert [s for s in range(1, 8) if every(0, s, 7)] == [7]


@pytest.mark.parametrize(("kind", "evaluations"), [(torch.optim.SGD, 1), (torch.optim.LBFGS, 2)])
def test_every_gradient_is_finished_before_it_is_used(kind, evaluations):
    """Also that of a second evaluation within a step."""
    model = nn.Linear(3, 1)
    before, finished = model.weight.detach().clone(), []
    optimizer = kind(model.parameters(), lr=0.1, **({"max_iter": 2} if evaluations > 1 else {}))

    def finish():
        finished.append(float(model.weight.grad.norm()))
        for p in model.parameters():
            p.grad.mul_(0.5)

    update = make_update(optimizer, finish=finish)
    update(1, model, optimizer, lambda m, x: (m(x).square().mean(), None), [torch.ones(2, 3)])
    assert len(finished) == evaluations
    assert all(norm > 0 for norm in finished)
    if kind is torch.optim.SGD:
        torch.testing.assert_close(model.weight.grad.norm(), torch.tensor(finished[0] / 2))
        assert torch.equal(model.weight, before - 0.1 * model.weight.grad)


def test_a_module_that_was_evaluated_alone_trains_again():
    """A compiled twin shares modules with the model that is evaluated."""
    shared = nn.Dropout()
    model = nn.Sequential(nn.Linear(1, 1), shared)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = (torch.ones(2, 1) for _ in range(2))
    seen = []
    for _ in train_steps(
        model,
        optimizer,
        batches,
        lambda model, x: (model(x).square().mean(), None),
        schedule=None,
        total_steps=2,
    ):
        seen.append(shared.training)
        shared.eval()
    assert seen == [True, True]

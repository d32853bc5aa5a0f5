"""Several processes on one batch equal one process on the whole of it, to rounding."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trainrig.distributed import Dismissed, Mean, Team, join_team
from trainrig.models.batchnorm import DebiasedBatchNorm


@dataclass(frozen=True)
class Batch:
    """Rows of images."""

    images: Tensor


def network():
    torch.manual_seed(0)
    # No biases before a norm: their gradients are only rounding, which Adam enlarges.
    one, two = (nn.Conv2d(width, 4, 3, bias=False) for width in (2, 4))
    return nn.Sequential(one, DebiasedBatchNorm(4), nn.Tanh(), two, DebiasedBatchNorm(4)).double()


def batches(count):
    source = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield Batch(torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=source))


def trained(model, optimizer, shares):
    for batch in shares:
        optimizer.zero_grad()
        (model.train()(batch.images) ** 3).mean().backward()
        optimizer.step()
    return model.state_dict()


def train_together(folder):
    team = join_team()
    model = network()
    if not team.leads:  # a follower starts from the leader's weights, whatever its own are
        nn.init.ones_(model[0].weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    assert team.equalise(model, optimizer, 7 if team.leads else 0) == 7
    state = trained(model, optimizer, team.shares(batches(5)))
    torch.save(state, folder / f"{team.rank}.pt")


def test_processes_on_shares_equal_one_on_the_whole_batch(in_team, tmp_path):
    model = network()
    alone = trained(model, torch.optim.AdamW(model.parameters(), lr=0.01), batches(5))
    in_team(train_together, tmp_path)
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, value in alone.items():
        assert all(torch.equal(states[0][key], state[key]) for state in states), key
        torch.testing.assert_close(states[0][key], value, rtol=1e-9, atol=1e-11)


def stop_early(folder):
    team = join_team()
    if team.leads:
        next(team.shares(batches(5)))
        team.dismiss()
    else:
        with pytest.raises(Dismissed):
            list(team.shares(batches(5)))


def test_a_leader_that_stops_dismisses_its_followers(in_team, tmp_path):
    in_team(stop_early, tmp_path)


def check_mean(folder):
    team = join_team()
    x = torch.tensor([1.0 + team.rank], requires_grad=True)
    mean = Mean.apply(x)
    assert mean.item() == 1.5
    ((2 + 2 * team.rank) * mean).sum().backward()
    assert x.grad.item() == 3.0


def test_the_mean_and_its_gradient(in_team, tmp_path):
    in_team(check_mean, tmp_path)


def test_shares_cover_a_batch_and_an_uneven_one_is_refused():
    rows = torch.arange(12)
    assert torch.equal(torch.cat([rows[Team(rank, 3).share(12)] for rank in range(3)]), rows)
    with pytest.raises(ValueError, match="batch size 8: not divisible among 3 processes"):
        Team(0, 3).share(8)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_weighted_means_of_uneven_parts_average_to_the_mean_of_the_batch(size):
    values = torch.arange(1.0, 5.0)
    parts = [Team(rank, size).split([0, 1, 2, 3]) for rank in range(size)]
    assert sorted(row for rows, weight in parts if weight for row in rows) == [0, 1, 2, 3]
    means = torch.stack([values[rows].mean() * weight for rows, weight in parts])
    torch.testing.assert_close(means.mean(), values.mean())


def test_a_process_alone_is_no_team(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_team() is None


def test_a_follower_tells_a_lost_leader_from_its_own_fault():
    follower = Team(rank=1, size=2)
    lost = "[third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
    with (
        pytest.raises(ChildProcessError, match="process 1: process 0 is gone"),
        follower.following(),
    ):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), follower.following():
        raise RuntimeError("out of memory")
    with follower.following():
        raise Dismissed

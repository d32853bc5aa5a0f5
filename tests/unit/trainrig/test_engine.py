"""Engines: refusals, and a captured step that does what an eager one does.

A graph can be captured on CUDA only. Here the capture is replaced by one that performs the step
again and writes into the captured tensors; all else (state put back, rates and counters as tensors,
batches by number) is the real thing. The tests marked ``gpu`` capture for real.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from trainrig.engine import GraphedUpdate, capture_graph, check_engine
from trainrig.loop import train_steps
from trainrig.optim import make_optimizer

CPU = torch.device("cpu")


def replayed(step, generators):
    """Capture by performing the step again; warm up as the real capture does."""
    for _ in range(3):
        step()
    loss, output = step()

    def replay():
        new_loss, new_output = step()
        loss.copy_(new_loss)
        output.copy_(new_output)

    return replay, loss, output


class Numbers:
    """Batch k is drawn from a generator seeded with k."""

    def __init__(self, device):
        self.generator = torch.Generator(device)
        self.generators = (self.generator,)
        self.device = device

    def prepare(self, number):
        self.generator.manual_seed(number)

    def make(self):
        return torch.randn(16, 5, generator=self.generator, device=self.device)


def network(device):
    torch.manual_seed(3)
    layers = (nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
    return nn.Sequential(*layers).to(device)


def loss_fn(model, batch):
    out = model(batch)
    return (out - batch.sum(1, keepdim=True)).square().mean(), out.detach()


def eager(device, optimizer, steps, **options):
    model, source = network(device), Numbers(device)
    chosen = make_optimizer(optimizer, model.parameters(), lr=0.1, **options)
    losses = []
    torch.manual_seed(9)
    for number in range(steps):
        chosen.param_groups[0]["lr"] = 0.01 * (number + 1)
        source.prepare(number)
        chosen.zero_grad()
        loss, _ = loss_fn(model.train(), source.make())
        loss.backward()
        chosen.step()
        losses.append(loss.detach())
    return model, torch.stack(losses), chosen


def graphed(device, optimizer, steps, capture, **options):
    model = network(device)
    chosen = make_optimizer(optimizer, model.parameters(), lr=0.1, **options)
    torch.manual_seed(9)
    update = GraphedUpdate(model, chosen, Numbers(device), loss_fn, number=4, capture=capture)
    records = train_steps(
        model,
        chosen,
        itertools.count(),
        loss_fn,
        schedule=lambda done: 0.01 * (done + 1),
        total_steps=steps,
        update=update,
    )
    losses = [record.loss.clone() for record in records]
    return model, torch.stack(losses), chosen


CASES = [
    ("adam", {}),
    ("adamw", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {}),
]


@pytest.mark.parametrize(("optimizer", "options"), CASES)
def test_a_captured_step_equals_an_eager_one(optimizer, options):
    expected, losses, _ = eager(CPU, optimizer, 6, **options)
    model, found, _ = graphed(CPU, optimizer, 6, replayed, **options)
    torch.testing.assert_close(found, losses, rtol=1e-6, atol=0)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-5, atol=1e-7)


def test_capturing_leaves_a_resumed_optimizer_as_it_was():
    model, _, optimizer = eager(CPU, "adamw", 3)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    random = torch.get_rng_state()
    GraphedUpdate(model, optimizer, Numbers(CPU), loss_fn, capture=replayed)
    for key, value in before[0].items():
        assert torch.equal(model.state_dict()[key], value), key
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, before[1][number][key]), key
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "graph",
            r"--engine graph: captures a CUDA graph, but the run is on cpu",
        ),
        ("grahp", r"--engine grahp: unknown; did you mean 'graph'"),
    ],
)
def test_engines_that_cannot_run_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        check_engine(name, CPU)
    check_engine("eager", CPU)
    check_engine("compile", CPU)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        ("rmsprop", {}, "cannot capture RMSprop; it is known to work for Adam, AdamW, SGD"),
        ("sgd", {"momentum": 0.9, "dampening": 0.5}, "SGD with dampening 0.5"),
    ],
)
def test_optimizers_that_cannot_be_captured_are_refused(optimizer, options, message):
    model = network(CPU)
    chosen = make_optimizer(optimizer, model.parameters(), lr=0.1, **options)
    with pytest.raises(ValueError, match=message):
        GraphedUpdate(model, chosen, Numbers(CPU), loss_fn, capture=replayed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("optimizer", "options"), CASES)
def test_a_cuda_graph_equals_eager_steps(optimizer, options):
    device = torch.device("cuda")
    expected, losses, _ = eager(device, optimizer, 6, **options)
    model, found, _ = graphed(device, optimizer, 6, capture_graph, **options)
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)

"""One contract for every registered optimizer; a new entry is tested by being registered."""

from __future__ import annotations

import importlib.util
import io

import pytest
import torch
from torch import nn

from trainrig.optim import OPTIMIZERS, extras, make_optimizer, resolve_optimizer
from trainrig.optim.composite import MuonWithAdamW, as_matrix

#: What the contract cannot apply to, and why.
EXCLUDED = {"sparseadam": "takes sparse gradients only, which no layer here has"}
LR = {"lbfgs": 0.1, "rprop": 1e-3}


def names():
    for name in OPTIMIZERS:
        marks = []
        if name in EXCLUDED:
            continue
        if name in extras.EXTRAS:
            package = extras.EXTRAS[name].partition(".")[0]
            missing = importlib.util.find_spec(package) is None
            marks.append(pytest.mark.skipif(missing, reason=f"needs {package}"))
        yield pytest.param(name, marks=marks)


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    )


def build(name, model):
    optimizer = make_optimizer(name, model.parameters(), lr=LR.get(name, 1e-2))
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def steps(model, optimizer, numbers):
    losses = []
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(8, 1, 4, 4, generator=generator)
        y = torch.randint(0, 3, (8,), generator=generator)

        def closure(x=x, y=y):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return losses


def stored(value):
    """What a checkpoint gives back: through a file, in safe mode."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def assert_same(left, right, where="state"):
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert left == right, where


@pytest.mark.parametrize("name", list(names()))
def test_contract(name):
    model = network()
    optimizer = build(name, model)
    before = [p.detach().clone() for p in model.parameters()]
    losses = steps(model, optimizer, range(3))
    assert all(torch.isfinite(torch.tensor(losses))), "step returns the closure's loss"
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert any(moved)
    assert "lr" in optimizer.param_groups[0]

    weights, state = stored(model.state_dict()), stored(optimizer.state_dict())
    twin = network()
    twin.load_state_dict(weights)
    resumed = build(name, twin)
    resumed.load_state_dict(state)
    assert_same(stored(resumed.state_dict()), state)
    assert steps(model, optimizer, range(3, 6)) == steps(twin, resumed, range(3, 6))
    assert_same(twin.state_dict(), model.state_dict())


@pytest.mark.parametrize("name", list(names()))
def test_zero_gradients_leave_finite_weights(name):
    model = network()
    optimizer = build(name, model)

    def closure():
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        return torch.zeros((), requires_grad=True)

    for _ in range(3):
        optimizer.step(closure)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_exclusions_are_registered_names():
    assert set(EXCLUDED) <= set(OPTIMIZERS)


def test_every_torch_optimizer_is_registered():
    classes = {
        name.lower()
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    assert classes - {"optimizer"} <= set(OPTIMIZERS)


def test_absent_package_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'lion': needs .*pip install -e .*\[optimizers\]"):
        resolve_optimizer("lion")


def test_muon_halves_are_torchs_own():
    """Matrices move as under torch.optim.Muon, vectors as under torch.optim.AdamW."""
    model, twin = nn.Linear(6, 4), nn.Linear(6, 4)
    twin.load_state_dict(model.state_dict())
    composite = MuonWithAdamW(model.parameters(), lr=0.02, weight_decay=0.01)
    muon = torch.optim.Muon(
        [twin.weight], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([twin.bias], lr=0.02, weight_decay=0.01)
    for _ in range(4):
        x = torch.randn(5, 6)
        for net, optimizers in ((model, [composite]), (twin, [muon, adamw])):
            net.zero_grad()
            net(x).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert_same(model.state_dict(), twin.state_dict())


def test_muon_updates_kernels_in_place_whatever_their_layout():
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=layout))
        matrix = as_matrix(kernel)
        assert matrix.shape == (4, 27)
        with torch.no_grad():
            matrix.zero_()
        assert not kernel.any()
    with pytest.raises(ValueError, match="not dense"):
        as_matrix(nn.Parameter(torch.randn(4, 6, 6)[:, ::2, ::2]))


def test_muon_follows_a_changed_learning_rate():
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    optimizer = MuonWithAdamW(layer.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.0
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(layer.weight, before)

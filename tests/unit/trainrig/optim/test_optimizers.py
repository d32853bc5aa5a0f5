"""The optimizer registry, its argument checks, and a contract every entry must keep."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch.testing import assert_close

from trainrig.optim import (
    OPTIMIZERS,
    check_arguments,
    make_optimizer,
    preset_arguments,
    published_name,
    resolve_optimizer,
)

#: Entries of other packages are names; `test_optimizer_conformance.py` holds those to account.
CLASSES = sorted(name for name in OPTIMIZERS if not isinstance(OPTIMIZERS[name], str))


class Sign(torch.optim.Optimizer):
    """A user's own optimizer, reachable by its dotted name."""

    def __init__(self, params, lr, scale=1.0):
        super().__init__(params, {"lr": lr, "scale": scale})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(group["lr"] * group["scale"] * p.grad.sign())


def build(name):
    torch.manual_seed(3)
    parameter = torch.nn.Parameter(torch.randn(4, 3))
    kwargs = {"lr": 0.01} if "lr" in inspect.signature(OPTIMIZERS[name]).parameters else {}
    return parameter, make_optimizer(name, [parameter], **kwargs)


def advance(name, parameter, optimizer, n_steps, start=0):
    for step in range(start, start + n_steps):

        def closure(step=step):
            optimizer.zero_grad()
            target = torch.full_like(parameter, 0.1 * step)
            loss = (parameter - target).square().sum()
            loss.backward()
            if name == "sparseadam":
                parameter.grad = parameter.grad.to_sparse()
            return loss

        closure()
        optimizer.step(closure)
    return parameter.detach().clone()


@pytest.mark.parametrize("name", CLASSES)
def test_contract_moves_resumes_bitwise_and_repeats(name):
    parameter, optimizer = build(name)
    start = parameter.detach().clone()
    half = advance(name, parameter, optimizer, 3)
    assert not torch.equal(start, half)
    saved = copy.deepcopy(optimizer.state_dict())
    whole = advance(name, parameter, optimizer, 3, start=3)

    other, resumed = build(name)
    other.data.copy_(half)
    resumed.load_state_dict(saved)
    assert torch.equal(advance(name, other, resumed, 3, start=3), whole)

    again, repeated = build(name)
    assert torch.equal(advance(name, again, repeated, 6), whole)


@pytest.mark.parametrize("name", CLASSES)
def test_contract_refuses_misspelt_arguments(name):
    first = list(inspect.signature(OPTIMIZERS[name]).parameters)[1]
    with pytest.raises(ValueError, match=f"unknown argument '{first}x'; did you mean '{first}'"):
        check_arguments(name, {f"{first}x": 1})


def test_every_torch_optimizer_has_its_alias():
    assert {"sgd", "adam", "adamw", "rmsprop", "lbfgs", "adagrad"} <= set(OPTIMIZERS)
    assert resolve_optimizer("adamw") is torch.optim.AdamW


@pytest.mark.parametrize("name", ["Adam", "ADAM", "adam"])
def test_names_in_any_letter_case(name):
    assert resolve_optimizer(name) is torch.optim.Adam
    assert published_name(name) == "Adam"


def test_published_names_are_aliases_with_fixed_arguments():
    (parameter,) = params = [torch.nn.Parameter(torch.zeros(2))]
    nesterov = make_optimizer("Nesterov", params, lr=0.1)
    assert type(nesterov) is torch.optim.SGD
    assert nesterov.defaults["momentum"] == 0.99
    assert nesterov.defaults["nesterov"] is True
    assert make_optimizer("momentum", params, lr=0.1, momentum=0.5).defaults["momentum"] == 0.5
    assert preset_arguments("Momentum") == {"momentum": 0.99, "nesterov": False}
    assert preset_arguments("sgd") == {}
    assert parameter.grad is None


def test_dotted_names():
    assert resolve_optimizer("torch.optim.RAdam") is torch.optim.RAdam
    with pytest.raises(ValueError, match="cannot import 'no_such_package'"):
        resolve_optimizer("no_such_package.Lion")
    with pytest.raises(ValueError, match="has no 'AdamX'; did you mean 'Adam"):
        resolve_optimizer("torch.optim.AdamX")
    with pytest.raises(ValueError, match="not a subclass of"):
        resolve_optimizer("torch.nn.Linear")


def test_required_arguments_of_a_users_class(monkeypatch):
    monkeypatch.setattr(torch.optim, "Sign", Sign, raising=False)
    with pytest.raises(ValueError, match="argument 'lr' is required"):
        check_arguments("torch.optim.Sign", {})
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer("torch.optim.Sign", [parameter], lr=0.5)
    parameter.grad = torch.tensor([2.0, -3.0])
    optimizer.step()
    assert parameter.tolist() == [0.5, 1.5]


def test_unknown_alias_names_the_nearest():
    with pytest.raises(KeyError, match="unknown optimizer 'adamv'; did you mean 'adam"):
        make_optimizer("adamv", [torch.zeros(1)])


def test_bad_values_are_the_optimizers_own_error():
    with pytest.raises(ValueError, match="Invalid learning rate"):
        make_optimizer("adam", [torch.nn.Parameter(torch.zeros(1))], lr=-1.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_fused_kernel_is_used_and_equals_the_plain_one(name):
    parameter, optimizer = build(name)
    assert optimizer.defaults["fused"] is True
    fused = advance(name, parameter, optimizer, 10)
    torch.manual_seed(3)
    plain = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = make_optimizer(name, [plain], lr=0.01, foreach=False)
    assert not optimizer.defaults.get("fused")
    assert_close(advance(name, plain, optimizer, 10), fused, rtol=1e-5, atol=1e-6)

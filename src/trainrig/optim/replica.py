"""Copies of optimizers, on which a step can be tried without touching the run.

``copy.deepcopy`` of a ``torch.optim.Optimizer`` drops every attribute but ``state``, ``defaults``
and ``param_groups``, and the parameters' memory that a subclass may keep views of. A replica has
all of it, on parameters of its own.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainrig.seeding import capture_rng, restore_rng

#: What torch or a learning-rate schedule hangs on an optimizer; no part of its memory.
MACHINERY = frozenset(vars(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))) - {
    "defaults",
    "param_groups",
    "state",
} | {"step", "_opt_called", "_warned_capturable_if_run_uncaptured", "_step_count"}


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters of all groups, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def inside(value: Any) -> Iterator[Any]:
    """Yield every tensor and optimizer within an optimizer's attributes, itself first."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Tensor):
            yield found
        elif isinstance(found, Optimizer):
            yield found
            waiting += [v for k, v in vars(found).items() if k not in MACHINERY]
        elif isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set | frozenset | deque):
            waiting += list(found)


def twin_of(parameter: Tensor) -> nn.Parameter:
    """Return a copy of a parameter in the same memory layout, with what is attached to it."""
    values = torch.empty_strided(
        parameter.size(), parameter.stride(), dtype=parameter.dtype, device=parameter.device
    )
    twin = nn.Parameter(values.copy_(parameter.detach()), parameter.requires_grad)
    for name, value in vars(parameter).items():
        setattr(twin, name, copy.deepcopy(value))
    return twin


def replicate(optimizer: Optimizer, twins: Mapping[int, Tensor]) -> Optimizer:
    """Return a copy of an optimizer, without its hooks, over other parameters.

    Args:
        optimizer: left as it is.
        twins: ``id`` of each of its parameters → the copy's; see ``twin_of``. A parameter that maps
            to itself is shared.
    """
    memo: dict[int, Any] = dict(twins)
    reached = list(inside(optimizer))
    own = {p.untyped_storage().data_ptr(): p for p in parameters_of(optimizer)}
    for found in reached:
        if isinstance(found, Optimizer):
            memo[id(found)] = object.__new__(type(found))
        elif id(found) not in memo and found.layout == torch.strided:
            parameter = own.get(found.untyped_storage().data_ptr())
            if parameter is not None and found.untyped_storage().nbytes():
                memo[id(found)] = _view(found, parameter, twins[id(parameter)])
    for found in reached:
        if isinstance(found, Optimizer):
            _fill(memo[id(found)], found, memo)
    return memo[id(optimizer)]


def _view(tensor: Tensor, parameter: Tensor, twin: Tensor) -> Tensor:
    """Return the part of ``twin`` that ``tensor`` is of ``parameter``."""
    if twin is parameter:
        return tensor
    start = twin.storage_offset() + tensor.storage_offset() - parameter.storage_offset()
    view = twin.detach().as_strided(tensor.size(), tensor.stride(), start)
    return nn.Parameter(view, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else view


def _fill(twin: Optimizer, optimizer: Optimizer, memo: dict[int, Any]) -> None:
    for name, value in vars(optimizer).items():
        if name == "step":  # of a learning-rate schedule, which counts the calls
            continue
        if name in MACHINERY:
            value = OrderedDict() if isinstance(value, dict) else value
        elif isinstance(value, torch.Generator):
            value = value.clone_state()
        else:
            with contextlib.suppress(Exception):  # a lock or a file is shared
                value = copy.deepcopy(value, memo)
        twin.__dict__[name] = value


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leave the random states as they were."""
    before = capture_rng(device)
    try:
        yield
    finally:
        restore_rng(before, device)


def surrogate(
    parameters: list[Tensor], *, create_graph: bool = False, contiguous: bool = False
) -> Callable[[], Tensor]:
    """Return a closure of ``Σ sin(p + c)`` with fixed random c in [0, 1).

    Gradient and curvature are nowhere all zero, and of full rank, whatever the parameters are.

    Args:
        parameters: real or complex; those without ``requires_grad`` are left out.
        create_graph: so that the gradient can be differentiated again.
        contiguous: store gradients row by row whatever the parameters' layout.
    """
    trained = [p for p in parameters if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    shifts = [torch.rand(_real(p).shape, generator=generator).to(_real(p)) for p in trained]

    def closure() -> Tensor:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            for p in trained:
                p.grad = None
            parts = [
                (_real(p) + c).sin().sum().double() for p, c in zip(trained, shifts, strict=True)
            ]
            loss = torch.stack(parts).sum()
            loss.backward(create_graph=create_graph)
        if contiguous:
            make_contiguous(trained)
        return loss

    return closure


def _real(parameter: Tensor) -> Tensor:
    return torch.view_as_real(parameter) if parameter.is_complex() else parameter


def make_contiguous(parameters: list[Tensor]) -> None:
    """Store gradients row by row, for optimizers that flatten them with ``view``."""
    for p in parameters:
        if p.grad is not None:
            p.grad = p.grad.contiguous()

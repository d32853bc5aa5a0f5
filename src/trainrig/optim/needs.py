"""What an optimizer needs of a training step, found once by trying a step on a copy.

torch's own classes are known (``ORDINARY``): gradient, then ``step()``. Any other class is asked:
two steps on copies of its parameters, on a surrogate loss, with and without a closure, with and
without a graph of the gradient. What moves the copies alike is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainrig.optim.composite import MuonWithAdamW
from trainrig.optim.replica import (
    parameters_of,
    random_state_kept,
    replicate,
    surrogate,
    twin_of,
)
from trainrig.optim.torch_builtin import ORDINARY

TRIAL_STEPS = 2
#: Classes of other packages that differentiate the gradient again, by name. A class of your own
#: says so with an attribute ``create_graph = True``.
SECOND_ORDER = frozenset({"AdaHessian", "SophiaH"})


@dataclass(frozen=True, slots=True)
class Needs:
    """How one optimizer is stepped.

    Attributes:
        closure: ``step`` is given a closure, which evaluates loss and gradient of the batch again.
        gradient_first: the gradient is computed before ``step``.
        create_graph: the gradient can be differentiated again.
        contiguous: gradients are stored row by row (``step`` flattens them with ``view``).
        keeps_gradient: after ``step`` the gradient is still that of the weights before.
        switches: has ``train()`` and ``eval()``: other weights are evaluated than trained.
        hook: has ``after_step(step, closure)``, called after each update.
    """

    closure: bool = False
    gradient_first: bool = True
    create_graph: bool = False
    contiguous: bool = False
    keeps_gradient: bool = True
    switches: bool = False
    hook: bool = False

    def describe(self) -> dict[str, bool]:
        """Return what differs from a plain ``step()`` after the gradient, as plain data."""
        plain = Needs()
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(plain, field.name)
        }


_FOUND: WeakKeyDictionary[Optimizer, Needs] = WeakKeyDictionary()


def needs_of(optimizer: Any) -> Needs:
    """Return what an optimizer needs; tried once for each.

    Raises:
        ValueError: a step fails however it is called.
    """
    if not isinstance(optimizer, Optimizer):  # a stack of elementwise ones
        return Needs()
    if optimizer not in _FOUND:
        _FOUND[optimizer] = _find(optimizer)
    return _FOUND[optimizer]


def check_shared(optimizer: Any) -> None:
    """Refuse an optimizer whose gradients several processes cannot average before its step.

    Raises:
        ValueError: it evaluates the loss itself, or differentiates the gradient again.
    """
    needs = needs_of(optimizer)
    if needs.closure or needs.create_graph or needs.hook:
        does = "differentiates the gradient again" if needs.create_graph else "evaluates the loss"
        raise ValueError(
            f"optimizer {type(optimizer).__name__}: {does} within its step; in one process only, "
            "leave torchrun out"
        )


def is_ordinary(optimizer: Optimizer) -> bool:
    """Say whether nothing has to be tried: a class of torch, or our own composite of two."""
    return type(optimizer) in ORDINARY or type(optimizer) is MuonWithAdamW


def _find(optimizer: Optimizer) -> Needs:
    if is_ordinary(optimizer):
        return Needs()
    device = parameters_of(optimizer)[0].device
    with random_state_kept(device), warnings.catch_warnings(action="ignore"):
        found = _try_closures(optimizer)
    switches = all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))
    hook = callable(getattr(optimizer, "after_step", None))
    return dataclasses.replace(found, switches=switches, hook=hook)


@dataclass(frozen=True, slots=True)
class _Trial:
    weights: list[Tensor]
    calls: list[int]
    keeps_gradient: bool


def _try_closures(optimizer: Optimizer) -> Needs:
    offered = takes_closure(optimizer)
    needs, first = _first_that_works(optimizer, Needs(closure=offered))
    if offered and (plain := _attempt(optimizer, needs, closure=False)) and _equal(plain, first):
        needs, first = dataclasses.replace(needs, closure=False), plain
    elif offered and all(first.calls):
        alone = _attempt(optimizer, needs, gradient_first=False)
        if alone and _equal(alone, first):
            needs = dataclasses.replace(needs, gradient_first=False)
    if not needs.create_graph:
        graphed = _attempt(optimizer, needs, create_graph=True)
        if graphed and not _equal(graphed, first):
            needs = dataclasses.replace(needs, create_graph=True)
    keeps = first.keeps_gradient and not needs.closure
    return dataclasses.replace(needs, keeps_gradient=keeps)


def takes_closure(optimizer: Optimizer) -> bool:
    """Say whether ``step`` has an argument that a closure can be given as."""
    parameters = inspect.signature(type(optimizer).step).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return len([p for p in parameters if p.kind in kinds]) > 1


def _first_that_works(optimizer: Optimizer, needs: Needs) -> tuple[Needs, _Trial]:
    declared = bool(getattr(optimizer, "create_graph", False))
    declared = declared or type(optimizer).__name__ in SECOND_ORDER
    problem: Exception | None = None
    for graph in (True,) if declared else (False, True):
        for contiguous in (False, True):
            tried = dataclasses.replace(needs, create_graph=graph, contiguous=contiguous)
            try:
                return tried, _try(optimizer, tried)
            except Exception as error:  # whatever a stranger's step raises
                problem = problem or error
    assert problem is not None
    reason = " ".join(str(problem).split()) or "no message"
    raise ValueError(
        f"optimizer {type(optimizer).__name__}: cannot be used, since a trial of its step fails "
        f"({type(problem).__name__}: {reason[:300]})"
    )


def _attempt(optimizer: Optimizer, needs: Needs, **changes: bool) -> _Trial | None:
    """Return how a variant does, None where it fails."""
    try:
        return _try(optimizer, dataclasses.replace(needs, **changes))
    except Exception:  # the variant is out, whatever the reason
        return None


def _try(optimizer: Optimizer, needs: Needs) -> _Trial:
    """Step a copy, always with the same random numbers."""
    parameters = parameters_of(optimizer)
    device = parameters[0].device
    twins = [twin_of(p) for p in parameters]
    copied = replicate(optimizer, dict(zip(map(id, parameters), twins, strict=True)))
    evaluate = surrogate(list(twins), create_graph=needs.create_graph, contiguous=needs.contiguous)
    calls, keeps = [], True
    with random_state_kept(device):
        torch.manual_seed(0)
        if callable(switch := getattr(copied, "train", None)):
            switch()
        for _ in range(TRIAL_STEPS):
            count = 0

            def closure() -> Tensor:
                nonlocal count
                count += 1
                return evaluate()

            for twin in twins:
                twin.grad = None
            if needs.gradient_first:
                evaluate()
            before = [None if p.grad is None else p.grad.detach().clone() for p in twins]
            copied.step(*([closure] if needs.closure else []))  # type: ignore[arg-type] # None or one
            calls.append(count)
            after = [p.grad for p in twins]
            keeps = keeps and all(
                (a is None and b is None) or (a is not None and b is not None and same_bits(a, b))
                for a, b in zip(after, before, strict=True)
            )
    for twin in twins:
        twin.grad = None  # may hold a graph
    return _Trial([twin.detach() for twin in twins], calls, keeps)


def _equal(one: _Trial, other: _Trial) -> bool:
    return all(same_bits(a, b) for a, b in zip(one.weights, other.weights, strict=True))


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors are equal bit for bit, NaN included.

    >>> same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    True
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    pair = [
        t.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)
    ]
    return torch.equal(*pair)

"""Optimizers and penalties of a ``Stack``.

The update itself is torch's: one optimizer of the members' class, whose parameter groups are the
rows of the stack. So a member's arithmetic is the one it would meet alone, each member has all its
settings to itself (learning rate, decay, momentum, betas), and a step costs a few kernels per
member instead of several hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainrig.vectorized.stack import Stack

ELEMENTWISE: tuple[type[torch.optim.Optimizer], ...] = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
)
"""Classes that treat every value alone, so that a row may stand for a member's parameters."""

SCALARS = ("step", "eta", "mu", "mu_product")
"""What torch's optimizers keep per parameter besides arrays of its shape."""


class StackedOptimizer:
    """The members' optimizers as one; fits ``trainrig.loop.train_steps``.

    ``param_groups[r]`` holds the settings of member r. Where the members' optimizers have a state
    (a checkpoint was loaded into them), training continues from it; ``write_members`` puts settings
    and state back, so that ``optimizers[r].state_dict()`` has what the member alone would save.

    Args:
        stack: the members.
        optimizers: one per member, of one class, each with all trained parameters of its member in
            one group.

    Raises:
        ValueError: optimizers of different or unsuited classes, or parameters that are not the
            stack's.
    """

    def __init__(self, stack: Stack, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.stack, self.optimizers = stack, tuple(optimizers)
        self.frozen = [False] * len(stack)
        self._check()
        self._rows = [nn.Parameter(row) for row in stack.flat.data]
        groups = [
            {**optimizer.param_groups[0], "params": [row]}
            for optimizer, row in zip(optimizers, self._rows, strict=True)
        ]
        kind: Any = type(optimizers[0])
        self._joint = kind(groups)
        for optimizer, row, member in zip(optimizers, self._rows, stack.members, strict=True):
            if optimizer.state:
                self._joint.state[row] = self._gather(optimizer, member, row)

    def _check(self) -> None:
        classes = {type(optimizer) for optimizer in self.optimizers}
        names = ", ".join(sorted(c.__name__ for c in classes))
        if len(classes) != 1 or not classes.issubset(ELEMENTWISE):
            accepted = ", ".join(c.__name__ for c in ELEMENTWISE)
            raise ValueError(f"StackedOptimizer: {names}; give members one class of {accepted}")
        if len(self.optimizers) != len(self.stack):
            raise ValueError(
                f"StackedOptimizer: {len(self.optimizers)} optimizers of {len(self.stack)} members"
            )
        for optimizer, member in zip(self.optimizers, self.stack.members, strict=True):
            own = [id(p) for p in member.parameters() if p.requires_grad]
            if [[id(p) for p in group["params"]] for group in optimizer.param_groups] != [own]:
                raise ValueError(
                    "StackedOptimizer: a member's optimizer must have all trained parameters of "
                    "the member, in order, in one group"
                )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Settings, one group per member; ``lr`` and ``weight_decay`` may be changed here."""
        return self._joint.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of the stack."""
        self.stack.zero_grad(set_to_none)

    def step(self) -> None:
        """Update every member that is not frozen."""
        gradient = self.stack.flat.grad
        for r, row in enumerate(self._rows):
            row.grad = None if gradient is None or self.frozen[r] else gradient[r]
        self._joint.step()

    def freeze(self, members: Iterable[int]) -> list[int]:
        """Stop the updates of these members; return those that were not frozen before."""
        fresh = [r for r in members if not self.frozen[r]]
        for r in fresh:
            self.frozen[r] = True
        return fresh

    def write_members(self) -> None:
        """Give every member's optimizer its settings and state, as views where they are arrays."""
        for r, (optimizer, member) in enumerate(
            zip(self.optimizers, self.stack.members, strict=True)
        ):
            settings = {k: v for k, v in self.param_groups[r].items() if k != "params"}
            optimizer.param_groups[0].update(settings)
            state = self._joint.state.get(self._rows[r], {})
            for name, slot in self.stack.slots.items() if state else ():
                parameter = member.get_parameter(name)
                optimizer.state[parameter] = {
                    key: slot.trimmed(value, parameter) if _is_array(key, value) else _own(value)
                    for key, value in state.items()
                }

    def _gather(
        self, optimizer: torch.optim.Optimizer, member: nn.Module, row: Tensor
    ) -> dict[str, Any]:
        """Return a member's state as arrays (N,) and scalars, from that of its parameters."""
        gathered: dict[str, Any] = {}
        for name, slot in self.stack.slots.items():
            parameter = member.get_parameter(name)
            for key, value in optimizer.state[parameter].items():
                if _is_array(key, value):
                    whole = gathered.setdefault(key, torch.zeros_like(row.data))
                    slot.trimmed(whole, parameter).copy_(value)
                else:
                    gathered.setdefault(key, _own(value))
        return gathered


def _is_array(key: str, value: Any) -> bool:
    return isinstance(value, Tensor) and key not in SCALARS


def _own(value: Any) -> Any:
    """Return a scalar of the state that no other parameter shares: optimizers count in place."""
    return value.clone() if isinstance(value, Tensor) else value


def stacked_l2_penalty(stack: Stack, squares: Tensor, norms: Tensor) -> Tensor:
    """Return each member's coupled penalty (R,), the ``l2_penalty`` of a stack.

    Args:
        stack: the members.
        squares: λ of λ·Σ‖W‖² for each member (R,), 0 where it has none.
        norms: λ of λ·Σ‖W‖, one norm per array, likewise.
    """
    penalty = squares * stack.flat.square().sum(dim=1)
    for parameter in stack.stacked_parameters().values():
        penalty = penalty + norms * torch.linalg.vector_norm(parameter.flatten(1), dim=1)
    return penalty

"""``Stack``: R modules of one structure, trained as one module.

Legend: R members, N values per member.

All trained parameters lie in one (R, N) array, a row per member, and each member keeps its own
``nn.Module`` and ``nn.Parameter`` objects, which become views of its row. So a member is evaluated,
saved and loaded by the code that handles any single module, and nothing is copied back and forth.

Members may differ in the first axis of some parameters (rows of a table, outputs of a head): they
are padded with zeros to the longest. As long as the padding has no share in a member's loss, its
gradient is zero and elementwise optimizers leave it at zero, so norms and penalties ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

ALIGNMENT = 16
"""Parameters start at multiples of this many values, for the sake of vector instructions."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one parameter lies in a row: from ``start``, padded to ``shape``."""

    start: int
    shape: tuple[int, ...]

    @property
    def room(self) -> int:
        """Values from this slot's start to the next one's."""
        return -(-math.prod(self.shape) // ALIGNMENT) * ALIGNMENT

    def shaped(self, part: Tensor) -> Tensor:
        """Return a slot's values (..., room) as (..., *shape)."""
        size = math.prod(self.shape)
        part = part if part.shape[-1] == size else part[..., :size]
        return part.unflatten(-1, self.shape) if self.shape else part[..., 0]

    def trimmed(self, row: Tensor, like: Tensor) -> Tensor:
        """Return the slot's part of a row (N,) without padding, of the shape of ``like``."""
        part = self.shaped(row[self.start : self.start + self.room])
        return part[: like.shape[0]] if like.ndim else part


class Stack(nn.Module):
    """R modules as one, with one parameter ``flat`` (R, N).

    ``stack(x)`` calls every member on its own slice of ``x`` (R, ...), or all on the same ``x``
    with ``in_dims=None``, and returns their outputs with a leading R; losses (R,) may be summed
    before ``backward``, since no member's loss depends on another's parameters. Buffers
    (BatchNorm's averages) and untrained parameters are stacked too, and updated in place. Buffers
    outside a module's state are constants, taken from the first member. ``train`` and ``eval``
    reach all members.

    A parameter that the loss does not reach has the gradient zero here, not ``None``.

    Args:
        members: modules of one structure on one device; taken over, not copied.
        pad: let the first axes of parameters differ.

    Raises:
        ValueError: no members, or members that do not fit each other.
    """

    def __init__(self, members: Sequence[nn.Module], *, pad: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("Stack: no members; give at least one module")
        self.members = tuple(members)
        trained = [_trained(member) for member in members]
        self.slots, size = _layout(trained, pad)
        self.flat = nn.Parameter(next(iter(trained[0].values())).new_zeros(len(members), size))
        for row, parameters in zip(self.flat.data, trained, strict=True):
            for name, slot in self.slots.items():
                place = slot.trimmed(row, parameters[name])
                parameters[name].data = place.copy_(parameters[name].data)
        self.constants = self._stack_constants()

    def _stack_constants(self) -> dict[str, Tensor]:
        """Stack buffers and untrained parameters; the members' become views of the stacks."""
        states = [member.state_dict(keep_vars=True) for member in self.members]
        stacked = {}
        for name in (name for name in states[0] if name not in self.slots):
            values = [state[name].data for state in states]
            _agree(name, values, pad=False)
            stacked[name] = torch.stack(values)
            for state, row in zip(states, stacked[name], strict=True):
                state[name].data = row
        return stacked

    def __len__(self) -> int:
        return len(self.members)

    @property
    def training(self) -> bool:
        """Whether all members are in training mode: one may have been evaluated alone."""
        return all(member.training for member in self.members)

    @training.setter
    def training(self, mode: bool) -> None:
        """Leave the mode to the members; torch sets it where a module is made or switched."""

    def train(self, mode: bool = True) -> Stack:
        """Set the mode of all members."""
        for member in self.members:
            member.train(mode)
        return super().train(mode)

    def stacked_parameters(self) -> dict[str, Tensor]:
        """Return the trained parameters by name, each (R, *shape), as functions of ``flat``."""
        parts = self.flat.split([slot.room for slot in self.slots.values()], dim=1)
        named = zip(self.slots.items(), parts, strict=True)
        return {name: slot.shaped(part) for (name, slot), part in named}

    def forward(
        self, *arguments: Any, in_dims: Any = 0, randomness: str = "different", **options: Any
    ) -> Any:
        """Call every member.

        Args:
            arguments: tensors, or nests of them.
            in_dims: 0 where ``arguments`` have a leading R, ``None`` where all members share them;
                one for all, or a tuple with one for each.
            randomness: ``different`` draws dropout for each member, ``same`` once for all.
            options: further keyword arguments, equal for all members.
        """
        if not isinstance(in_dims, tuple):
            in_dims = (in_dims,) * len(arguments)

        def call(parameters: dict[str, Tensor], constants: dict[str, Tensor], *inputs: Any) -> Any:
            return functional_call(self.members[0], (parameters, constants), inputs, options)

        mapped = vmap(call, in_dims=(0, 0, *in_dims), randomness=randomness)
        return mapped(self.stacked_parameters(), self.constants, *arguments)

    def expose_gradients(self) -> None:
        """Let the members' parameters have their part of ``flat.grad`` as ``.grad``."""
        for r, member in enumerate(self.members):
            for name, parameter in _trained(member).items():
                whole = self.flat.grad
                parameter.grad = (
                    None if whole is None else self.slots[name].trimmed(whole[r], parameter)
                )


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _layout(trained: Sequence[dict[str, nn.Parameter]], pad: bool) -> tuple[dict[str, Slot], int]:
    """Return each parameter's slot, and the length of a row."""
    if not trained[0] or any(list(parameters) != list(trained[0]) for parameters in trained):
        raise ValueError("Stack: members have other parameters, or none; stack modules of one kind")
    kinds = {(p.dtype, p.device) for parameters in trained for p in parameters.values()}
    if len(kinds) > 1:
        found = " and ".join(f"{dtype} on {device}" for dtype, device in kinds)
        raise ValueError(f"Stack: parameters are {found}; one type and one device are needed")
    slots, start = {}, 0
    for name in trained[0]:
        shape = _agree(name, [parameters[name] for parameters in trained], pad)
        slots[name] = Slot(start, shape)
        start += slots[name].room
    return slots, start


def _agree(name: str, tensors: Sequence[Tensor], pad: bool) -> tuple[int, ...]:
    """Return the common shape of the members' tensors, with ``pad`` that of the longest."""
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1 and (not pad or len({shape[1:] for shape in shapes}) > 1 or () in shapes):
        raise ValueError(
            f"Stack: {name!r} has shapes {' and '.join(map(str, shapes))}; they must be equal"
            + (" but for the first axis" if pad else "")
        )
    return shapes[-1]

"""Parameter groups as data: rules from names and ranks to optimizer settings.

The first matching rule takes a parameter. Every parameter must be taken and every rule must take
one: a misspelt pattern fails at once, not after a run in which nothing decayed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class GroupRule:
    """Settings for the parameters whose full name matches.

    Attributes:
        pattern: regular expression, searched in the parameter's name.
        settings: overrides of the optimizer's defaults, e.g. ``{"weight_decay": 0.0}``; the key
            ``lr_scale`` multiplies the schedule's learning rate.
        min_rank: parameters with fewer axes are left to the next rules.
    """

    pattern: str = ".*"
    settings: Mapping[str, Any] = field(default_factory=dict)
    min_rank: int = 0


@dataclass(frozen=True, slots=True)
class GroupCount:
    """What one rule took: ``n_tensors`` tensors with ``n_values`` numbers."""

    rule: GroupRule
    n_tensors: int
    n_values: int

    def __str__(self) -> str:
        """Describe the group in one line, for printing at the start of a run."""
        where = f"{self.rule.pattern!r}" + (
            f" with {self.rule.min_rank} or more axes" if self.rule.min_rank else ""
        )
        settings = ", ".join(f"{k}={v}" for k, v in self.rule.settings.items()) or "defaults"
        return f"{where}: {self.n_tensors} tensors, {self.n_values:,} parameters, {settings}"


def decay_matrices(weight_decay: float) -> tuple[GroupRule, GroupRule]:
    """Return rules that decay tensors of rank >= 2 and nothing else (biases, norms)."""
    return (
        GroupRule(settings={"weight_decay": weight_decay}, min_rank=2),
        GroupRule(settings={"weight_decay": 0.0}),
    )


def make_groups(
    named_parameters: Iterable[tuple[str, Tensor]], rules: Sequence[GroupRule]
) -> tuple[list[dict[str, Any]], list[GroupCount]]:
    """Split parameters into optimizer groups.

    Args:
        named_parameters: ``model.named_parameters()``; those without gradient are left out.
        rules: tried in order.

    Returns:
        Groups for the optimizer's constructor, and one count per rule to print.

    Raises:
        ValueError: a parameter no rule takes, a rule that takes none, or a bad pattern.
    """
    compiled = [_compile(rule.pattern) for rule in rules]
    taken: list[list[Tensor]] = [[] for _ in rules]
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        for pattern, rule, members in zip(compiled, rules, taken, strict=True):
            if parameter.ndim >= rule.min_rank and pattern.search(name):
                members.append(parameter)
                break
        else:
            raise ValueError(f"param_groups: no rule takes {name!r}; end with one for '.*'")
    counts = []
    for rule, members in zip(rules, taken, strict=True):
        if not members:
            raise ValueError(
                f"param_groups: rule {rule.pattern!r} takes no parameter; correct or remove it"
            )
        counts.append(GroupCount(rule, len(members), sum(p.numel() for p in members)))
    groups = [
        {"params": members, **rule.settings} for rule, members in zip(rules, taken, strict=True)
    ]
    return groups, counts


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"param_groups: bad pattern {pattern!r} ({error})") from None

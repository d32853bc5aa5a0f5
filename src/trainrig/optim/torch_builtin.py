"""Every optimizer that ships with the installed torch, under its lower-case class name.

Except Muon, which takes matrices only: the name ``muon`` is the composite in ``composite.py``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from trainrig.registry import Registry

OPTIMIZERS = Registry("optimizer")

for _name, _class in sorted(vars(torch.optim).items()):
    if (
        inspect.isclass(_class)
        and issubclass(_class, torch.optim.Optimizer)
        and _class not in (torch.optim.Optimizer, torch.optim.Muon)
    ):
        OPTIMIZERS.register(_name.lower())(_class)

#: DeepOBS's published names that are a registered optimizer with fixed arguments.
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "momentum": ("sgd", {"momentum": 0.99, "nesterov": False}),
    "nesterov": ("sgd", {"momentum": 0.99, "nesterov": True}),
}

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Classes with a fused kernel for both CPU and CUDA."""

ORDINARY = frozenset(
    _class
    for _class in vars(torch.optim).values()
    if inspect.isclass(_class)
    and issubclass(_class, torch.optim.Optimizer)
    and _class not in (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
)
"""torch's classes whose update is a function of the gradient alone, and whose state is complete."""

"""Every optimizer that ships with the installed torch, under its lower-case class name.

Except Muon, which takes matrices only: the name ``muon`` is the composite in ``composite.py``.
"""

from __future__ import annotations

import inspect

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

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Classes with a fused kernel for both CPU and CUDA."""

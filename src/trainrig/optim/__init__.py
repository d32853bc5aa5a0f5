"""Optimizers by alias or dotted name, parameter groups as data, schedules and penalties.

>>> make_optimizer("adamw", [torch.nn.Parameter(torch.zeros(2))], lr=0.1).defaults["lr"]
0.1
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from trainrig.errors import nearest
from trainrig.optim import composite, extras  # noqa: F401 - they register their entries
from trainrig.optim.torch_builtin import FUSED, OPTIMIZERS

__all__ = ["OPTIMIZERS", "check_arguments", "make_optimizer", "resolve_optimizer"]


def resolve_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """Return the class behind an alias (``adamw``) or a dotted name (``package.module.Class``).

    Raises:
        KeyError: an unknown alias.
        ValueError: a dotted name that cannot be imported, or is no ``torch.optim.Optimizer``; or
            an alias whose package is not installed.
    """
    entry = name if "." in name else OPTIMIZERS[name]
    if not isinstance(entry, str):
        return entry
    if entry != name and importlib.util.find_spec(entry.partition(".")[0]) is None:
        raise ValueError(
            f"optimizer {name!r}: needs the package {entry.partition('.')[0]}, which is not "
            "installed; pip install -e '.[optimizers]'"
        )
    module_name, _, class_name = entry.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"optimizer {name!r}: cannot import {module_name!r} ({error}); install the package or "
            "correct the name"
        ) from None
    found = getattr(module, class_name, None)
    if found is None:
        hint = nearest(class_name, vars(module))
        raise ValueError(f"optimizer {name!r}: {module_name} has no {class_name!r}{hint}")
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"optimizer {name!r}: not a subclass of torch.optim.Optimizer; name one")
    return found


def check_arguments(name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that the optimizer's constructor does not take.

    Needs no parameters, so it can run before any data are loaded.

    Raises:
        ValueError: an unknown keyword (with the nearest one), or a required one left out.
    """
    parameters = list(inspect.signature(resolve_optimizer(name)).parameters.values())[1:]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    for key in kwargs:
        if key not in named and not open_ended:
            raise ValueError(
                f"optimizer {name!r}: unknown argument {key!r}{nearest(key, named)} "
                f"(accepted: {', '.join(named)})"
            )
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in kwargs:
            raise ValueError(f"optimizer {name!r}: argument {key!r} is required; give a value")


def make_optimizer(
    name: str,
    params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
    **kwargs: Any,
) -> torch.optim.Optimizer:
    """Build an optimizer.

    torch's Adam, AdamW and SGD use their fused kernel (same formula, other rounding) where all
    parameters allow it and no implementation was asked for.

    Args:
        name: alias or dotted name, see :func:`resolve_optimizer`.
        params: parameters, or groups from :func:`trainrig.optim.param_groups.make_groups`.
        **kwargs: constructor arguments, checked against its signature.

    Raises:
        KeyError: an unknown alias.
        ValueError: an unknown class, argument or value.
    """
    check_arguments(name, kwargs)
    factory = resolve_optimizer(name)
    groups: list[Any] = list(params)
    chosen = {"fused", "foreach", "capturable", "differentiable"} & set(kwargs)
    if factory in FUSED and not chosen and _all_fusable(groups):
        kwargs["fused"] = True
    try:
        return factory(groups, **kwargs)
    except (TypeError, IndexError) as error:  # such as one beta where two are needed
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise ValueError(f"optimizer {name!r}: refuses {given} ({error})") from None


def _all_fusable(params: list[Any]) -> bool:
    tensors = [t for p in params for t in (p["params"] if isinstance(p, dict) else [p])]
    return all(t.is_floating_point() and t.device.type in ("cpu", "cuda") for t in tensors)

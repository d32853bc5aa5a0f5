"""Optimizers by name or dotted name, schedules and penalties.

All systems look names up here, in any letter case: torch's classes, the entries of ``extras``,
DeepOBS's published ``Momentum`` and ``Nesterov``, or ``package.module.Class``.

>>> make_optimizer("adamw", [torch.nn.Parameter(torch.zeros(2))], lr=0.1).defaults["lr"]
0.1
>>> make_optimizer("Nesterov", [torch.nn.Parameter(torch.zeros(2))], lr=0.1).defaults["momentum"]
0.99
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
from trainrig.optim.torch_builtin import FUSED, OPTIMIZERS, PRESETS

__all__ = [
    "OPTIMIZERS",
    "PRESETS",
    "accepts",
    "check_arguments",
    "make_optimizer",
    "preset_arguments",
    "published_name",
    "resolve_optimizer",
]


def resolve_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """Return the class behind a name (``adamw``, ``Momentum``) or ``package.module.Class``.

    Raises:
        KeyError: an unknown name.
        ValueError: a dotted name that cannot be imported, or is no ``torch.optim.Optimizer``; or
            a name whose package is not installed.
    """
    entry = name if "." in name else _entry(name)
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


def _entry(name: str) -> Any:
    key = name.lower()
    if key in PRESETS:
        key = PRESETS[key][0]
    if key not in OPTIMIZERS:
        known = sorted([*OPTIMIZERS, *PRESETS])
        raise KeyError(
            f"unknown optimizer {name!r}{nearest(key, known)} (known: {', '.join(known)}, in any "
            "letter case; or package.module.Class)"
        )
    return OPTIMIZERS[key]


def preset_arguments(name: str) -> dict[str, Any]:
    """Return the arguments that a name fixes: those of ``Momentum`` and ``Nesterov``, else none."""
    return dict(PRESETS[name.lower()][1]) if name.lower() in PRESETS else {}


def published_name(name: str) -> str:
    """Return an optimizer's name in results, however it was spelt.

    >>> [published_name(n) for n in ("adam", "MOMENTUM", "Lion", "pytorch_optimizer.Lion")]
    ['Adam', 'Momentum', 'lion', 'Lion']
    """
    if "." in name:
        return name.rpartition(".")[2]
    if name.lower() in PRESETS:
        return name.capitalize()
    entry = _entry(name)
    plain = isinstance(entry, type) and entry.__name__.lower() == name.lower()
    return entry.__name__ if plain else name.lower()


def accepts(name: str, argument: str) -> bool:
    """Say whether an optimizer's constructor takes this keyword."""
    parameters = inspect.signature(resolve_optimizer(name)).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


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
    given = {**preset_arguments(name), **kwargs}
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in given:
            raise ValueError(f"optimizer {name!r}: argument {key!r} is required; give a value")


def make_optimizer(
    name: str,
    params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
    *,
    fuse: bool = True,
    **kwargs: Any,
) -> torch.optim.Optimizer:
    """Build an optimizer.

    torch's Adam, AdamW and SGD use their fused kernel (same formula, other rounding) where all
    parameters allow it and no implementation was asked for. An argument ``base_optimizer`` (of SAM,
    Lookahead and the like) may be a name.

    Args:
        name: name or dotted name, see :func:`resolve_optimizer`.
        params: parameters, or groups of them.
        fuse: False keeps torch's own choice of kernel.
        **kwargs: constructor arguments, checked against its signature.

    Raises:
        KeyError: an unknown name.
        ValueError: an unknown class, argument or value.
    """
    check_arguments(name, kwargs)
    factory = resolve_optimizer(name)
    kwargs = {**preset_arguments(name), **kwargs}
    if isinstance(kwargs.get("base_optimizer"), str):
        kwargs["base_optimizer"] = resolve_optimizer(kwargs["base_optimizer"])
    groups: list[Any] = list(params)
    chosen = {"fused", "foreach", "capturable", "differentiable"} & set(kwargs)
    if fuse and factory in FUSED and not chosen and _all_fusable(groups):
        kwargs["fused"] = True
    from trainrig.optim.resume import remember  # which imports the classes registered here

    try:
        optimizer = factory(groups, **kwargs)
        remember(optimizer)
        return optimizer
    except ValueError:
        raise
    except Exception as error:  # of any class: such as one beta where two are needed
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise ValueError(f"optimizer {name!r}: refuses {given} ({error})") from None


def _all_fusable(params: list[Any]) -> bool:
    tensors = [t for p in params for t in (p["params"] if isinstance(p, dict) else [p])]
    return all(t.is_floating_point() and t.device.type in ("cpu", "cuda") for t in tensors)

"""Hyperparameters of optimizers, checked before anything runs."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainrig.errors import nearest

Specification = Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]


class ScheduleError(TypeError, ValueError):
    """A learning-rate schedule given by halves; both built-in types catch it."""


def specify(optimizer_class: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Return ``{name: {"type", "default"?}}`` from an optimizer's signature."""
    found = {}
    for name, parameter in list(inspect.signature(optimizer_class).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        entry: dict[str, Any] = {}
        if parameter.default is not parameter.empty:
            entry["default"] = parameter.default
            if isinstance(parameter.default, bool | int | float | tuple | str):
                entry["type"] = type(parameter.default)
        if name in ("lr", "learning_rate", "weight_decay", "momentum", "dampening", "eps"):
            entry["type"] = float
        found[name] = entry
    return found


def normalise_specification(given: Specification) -> dict[str, dict[str, Any]]:
    """Accept the nested dictionary of 1.2, or the list of dictionaries of 1.1."""
    if isinstance(given, Mapping):
        return {name: dict(entry) for name, entry in given.items()}
    return {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in given}


def resolve(
    specification: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return a value for every hyperparameter that has one: given, else default.

    Raises:
        KeyError: an unknown hyperparameter (with the nearest), or one without value and default.
        ValueError: a value of the wrong type.
    """
    for name in given:
        if name not in specification:
            accepted = ", ".join(specification) or "none"
            hint = nearest(name, specification)
            raise KeyError(f"{where}: unknown hyperparameter {name!r}{hint} (accepted: {accepted})")
    values = {}
    for name, entry in specification.items():
        if name in given and given[name] is not None:
            values[name] = convert(given[name], entry.get("type"), f"{where}: {name}")
        elif "default" in entry:
            values[name] = entry["default"]
        else:
            raise KeyError(f"{where}: hyperparameter {name!r} has no value and no default; give it")
    return values


_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def convert(value: Any, kind: Any, where: str) -> Any:
    """Return ``value``, perhaps a text from the command line, as ``kind``; booleans are real.

    Raises:
        ValueError: it is none.
    """
    problem = ValueError(f"{where} is {value!r}; {getattr(kind, '__name__', kind)} is expected")
    if kind is None:
        return _from_text(value)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _BOOLS:
            return _BOOLS[value.lower()]
        raise problem
    if isinstance(value, bool):
        raise problem
    if kind in (tuple, list):
        value = _from_text(value if not isinstance(value, str) else value.strip("()"))
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    try:
        number = kind(value)
    except (TypeError, ValueError):
        raise problem from None
    if kind is int and float(value) != number:
        raise problem
    return number


def _from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    lowered = value.strip().lower()
    if lowered in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(lowered)
    if "," in value and not value.strip().startswith("["):
        return [_from_text(part) for part in value.split(",") if part.strip()]
    try:
        return json.loads(value)
    except ValueError:
        try:
            return float(value)
        except ValueError:
            return value


def check_schedule(epochs: Any, factors: Any) -> None:
    """Check a learning-rate schedule.

    Raises:
        ScheduleError: only one of the two lists (also a ``TypeError``, as upstream).
        ValueError: no lists, unequal lengths, epochs not increasing from at least 1.
    """
    if epochs is None and factors is None:
        return
    if epochs is None or factors is None:
        missing = "lr_sched_epochs" if epochs is None else "lr_sched_factors"
        raise ScheduleError(f"learning-rate schedule: {missing} is missing; give both lists")
    if not isinstance(epochs, list | tuple) or not isinstance(factors, list | tuple):
        raise ValueError(
            f"learning-rate schedule: {epochs!r} and {factors!r}; two lists are expected"
        )
    if len(epochs) != len(factors):
        raise ValueError(
            f"learning-rate schedule: {len(epochs)} epochs but {len(factors)} factors; "
            "lists of equal length are expected"
        )
    if any(isinstance(e, bool) or not isinstance(e, int) or e < 1 for e in epochs) or any(
        later <= earlier for earlier, later in itertools.pairwise(epochs)
    ):
        raise ValueError(
            f"learning-rate schedule: epochs {list(epochs)}; increasing integers from 1 on expected"
        )

"""A tuner from texts, as the command line gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.hyperparameters import convert, specify
from deepobs.pytorch.runners.settings import trace
from deepobs.pytorch.tuner.searches import (
    GP,
    PUBLISHED_LR_GRID,
    GridSearch,
    RandomSearch,
    log_uniform,
    uniform,
)
from deepobs.pytorch.tuner.tuner import Tuner
from trainrig.errors import nearest
from trainrig.optim import preset_arguments, published_name, resolve_optimizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """What is searched, as texts.

    Attributes:
        grid: ``"name=v1,v2"`` each; the published learning rates where empty.
        ranges: ``"name=low:high"`` each, for searches other than a grid.
        linear: names in ``ranges`` that are drawn on a linear scale.
        fixed: hyperparameters that every run has.
    """

    grid: Sequence[str] = ()
    ranges: Sequence[str] = ()
    linear: Sequence[str] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


def make_tuner(
    optimizer: str,
    space: Space,
    *,
    search: str = "grid",
    trials: int = 20,
    sampler: str = "tpe",
    options: Mapping[str, Any],
) -> Tuner:
    """Return a search over an optimizer's hyperparameters.

    Args:
        optimizer: as ``scripts/run_deepobs.py`` takes it.
        space: what is searched.
        search: ``grid``, ``random`` or ``bayesian``.
        trials: settings of a random or Bayesian search.
        sampler: of the Bayesian search.
        options: see ``Tuner``; ``optimizer_name`` defaults to the name given.

    Raises:
        ValueError, KeyError: a text that cannot be read, or an unknown hyperparameter.
    """
    grid, ranges, linear, fixed = space.grid, space.ranges, space.linear, space.fixed
    optimizer_class, preset = resolve_optimizer(optimizer), preset_arguments(optimizer)
    known = specify(optimizer_class)
    # The tuner gives single values their type.
    values = {name: text.split(",") for name, text in _pairs("--grid", grid, known)}
    bounds = {name: _bounds(name, text) for name, text in _pairs("--range", ranges, known)}
    if search == "grid" and ranges:
        raise ValueError("--range: a grid has none; give --grid, or --search random")
    if search != "grid" and (grid or not ranges):
        raise ValueError(f"--search {search}: give --range NAME=LOW:HIGH, and no --grid")
    for name in set(linear) - bounds.keys():
        raise ValueError(f"--linear {name}: no --range of that name{nearest(name, bounds)}")
    if search == "grid":
        values = values or {"lr": list(PUBLISHED_LR_GRID)}
    searched = [*values, *bounds]
    held = _held({**preset, **fixed}, known, searched)
    names = {name: {"type": known[name].get("type", float)} for name in searched} | held
    options = {
        **options,
        "optimizer_name": options.get("optimizer_name") or published_name(optimizer),
    }
    if search == "grid":
        size = math.prod(map(len, values.values()))
        return GridSearch(optimizer_class, names, values, size, StandardRunner, **options)
    if search == "random":
        drawn = {name: _distribution(name, *ends, linear) for name, ends in bounds.items()}
        return RandomSearch(optimizer_class, names, drawn, trials, StandardRunner, **options)
    log_scale = [name for name in bounds if name not in linear]
    return GP(
        optimizer_class,
        names,
        bounds,
        trials,
        StandardRunner,
        log_scale=log_scale,
        sampler=sampler,
        **options,
    )


def _held(
    fixed: Mapping[str, Any], known: Mapping[str, Any], searched: Sequence[str]
) -> dict[str, dict[str, Any]]:
    held = {}
    for name, value in fixed.items():
        _check_name("--hp", name, known)
        if name not in searched:
            kind = known[name].get("type")
            held[name] = {"default": convert(value, kind, f"--hp {name}")}
            held[name] |= {"type": kind} if kind else {}
    return held


def _pairs(flag: str, texts: Sequence[str], known: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise ValueError(f"{flag} {text}: no '=' found; write {flag} lr=...")
        _check_name(flag, name, known)
        pairs.append((name, value))
    return pairs


def _check_name(flag: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise KeyError(
            f"{flag}: unknown hyperparameter {name!r}{nearest(name, known)} "
            f"(accepted: {', '.join(known)})"
        )


def _bounds(name: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"--range {name}={text}: two numbers LOW:HIGH are expected") from None
    if not ends[0] < ends[1]:
        raise ValueError(f"--range {name}={text}: LOW < HIGH is expected")
    return ends


def _distribution(name: str, low: float, high: float, linear: Sequence[str]) -> Any:
    if name in linear:
        return uniform(low, high)
    if low <= 0:
        raise ValueError(
            f"--range {name}={low:g}:{high:g}: a logarithmic scale needs LOW > 0; "
            f"or give --linear {name}"
        )
    return log_uniform(math.log10(low), math.log10(high))


def trace_search(
    tuner: Tuner, arguments: Any, run: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], str]:
    """Return the settings of a search's first run with where they came from, and what varies.

    Args:
        tuner: from ``make_tuner``.
        arguments: of the command line.
        run: arguments of every run.
        names: argument → flag, for those given.
    """
    ranges = dict(_pairs("--range", arguments.range or [], tuner.specification))
    searched = [*dict(_pairs("--grid", arguments.grid or [], tuner.specification)), *ranges]
    if arguments.search == "bayesian":  # its settings depend on results
        first = {name: text.partition(":")[0] for name, text in ranges.items()}
        count = arguments.trials
    else:
        proposals = tuner.propose(arguments.random_seed)
        first, count = proposals[0], len(proposals)
    known = {key: value for key, value in run.items() if key != "data_dir"}
    settings = tuner.runner.make_settings(
        arguments.testproblem, first, random_seed=arguments.random_seed, **known
    )
    held = [pair.partition("=")[0] for pair in arguments.hp or []]
    origins = {**names, **{f"hyperparams.{name}": "--hp" for name in held}}
    origins |= {f"hyperparams.{name}": "searched; of the first run" for name in searched or ["lr"]}
    seeds = " ".join(map(str, arguments.seeds or [arguments.random_seed]))
    return trace(settings, origins).rows(), f"{count} settings, each with seed {seeds}"

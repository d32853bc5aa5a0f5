"""Results that exist more than once: known by their setting and seed, never by their file.

A seed gives the same numbers however often its command is given, so copies say nothing about the
spread over seeds. Whatever has an ``n`` counts equal seeds of one setting once: the newest result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: What a configuration calls its seed.
SEEDS = ("seed", "random_seed")
#: Keys that say how, where and how often a run works or logs: two runs that differ in these alone
#: are the same run.
NOT_SETTINGS = frozenset(
    (
        *("device", "engine", "threads", "num_workers", "pipeline"),
        *("data_dir", "output_dir", "results_dir", "log_dir", "download", "check_files"),
        *("log_interval", "train_log_interval", "eval_interval", "eval_every", "save_interval"),
        *("keep_last", "experiment_name", "tracker"),
    )
)
#: Keys whose text names an optimizer; upper and lower case are the same.
OPTIMIZER_KEYS = ("optimizer", "optimizer_name", "optimizer.name", "optimizer.type")


@dataclass(frozen=True)
class Once(Generic[T]):
    """Items of which each occurs once, in their order.

    Attributes:
        kept: the newest of equal ones.
        dropped: (kept item, older ones equal to it), where there are any.
    """

    kept: list[T]
    dropped: list[tuple[T, list[T]]]


def count_once(
    items: Iterable[T], key: Callable[[T], Hashable | None], age: Callable[[T], Any]
) -> Once[T]:
    """Keep the newest of the items that have one key.

    Args:
        items: any results.
        key: equal for equal results; None for one that is equal to no other.
        age: sorts older before newer; of equal age the later item wins.
    """
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        name = key(item)
        groups.setdefault(object() if name is None else ("known", name), []).append(item)
    kept, dropped = [], []
    for group in groups.values():
        ordered = sorted(group, key=age)
        kept.append(ordered[-1])
        if len(ordered) > 1:
            dropped.append((ordered[-1], ordered[:-1]))
    return Once(kept, dropped)


def repeated_text(what: str, times: int) -> str:
    """Return the sentence that says of a result that it exists more than once.

    >>> repeated_text("seed 42", 3)
    'seed 42 is there 3 times; it counts once, the newest'
    """
    return f"{what} is there {times} times; it counts once, the newest"


def canonical(value: Any) -> str:
    """Return a text that is equal for values that are equal, however they are written.

    Numbers are equal by value (``1``, ``1.0``), tuples are lists, keys have no order, numbers that
    are no JSON are named.

    >>> canonical({"lr": 1e-1, "b": (1, 2.5)}) == canonical({"b": [1.0, 2.5], "lr": 0.1})
    True
    """
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        return int(value) if value.is_integer() else value
    return str(value)


def setting_key(config: Mapping[str, Any], *, seed: bool = True) -> str | None:
    """Return what identifies the run of a configuration: its setting and seed.

    ``NOT_SETTINGS`` are left out at every depth.

    Args:
        config: a resolved configuration.
        seed: False leaves the seed out: what runs have in common that only it tells apart.

    Returns:
        None where the configuration has no seed, so that nothing says which runs are equal.
    """
    seeds: list[Any] = []

    def strip(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in tree.items():
            if key in NOT_SETTINGS:
                continue
            if key in SEEDS:
                seeds.extend([] if value is None else [value])
                if not seed:
                    continue
            if isinstance(value, Mapping):
                kept[key] = strip(value, f"{key}.")
            elif isinstance(value, str) and (prefix + key).endswith(OPTIMIZER_KEYS):
                kept[key] = value.casefold()
            else:
                kept[key] = value
        return kept

    plain = strip(config, "")
    return canonical(plain) if seeds else None

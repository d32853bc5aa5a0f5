"""The weight-decay grid of Figure 3: names, configurations and files of its runs.

Source: icl reference sweep (folder names, columns), Chan et al. 2022 Fig. 3 (class counts).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pytorch_port.config.schema import IclConfig
from trainrig.config import apply_overrides, to_dict
from trainrig.summaries import names_in

#: What changes no number but its rounding. The source of images stands in their description, and
#: there their digest.
SAME_NUMBERS = (
    "device",
    "images",
    "data.source",
    "training.engine",
    "training.query_only_head",
    "training.log_interval",
    "training.save_interval",
    "training.keep_last",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What is varied; every combination is one run.

    Attributes:
        class_counts: all classes of a run, common and holdout included.
        weight_decays: λ.
        seeds: of initial weights and sequences.
        l2_modes: what λ does, see ``OptimizerConfig``.
    """

    class_counts: tuple[int, ...]
    weight_decays: tuple[float, ...]
    seeds: tuple[int, ...]
    l2_modes: tuple[str, ...] = ("decoupled",)

    def __post_init__(self) -> None:
        """Refuse empty, doubled or impossible values."""
        for name in ("class_counts", "weight_decays", "seeds", "l2_modes"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name} {_spaced(values)}: give one or more different values")
        for value in self.weight_decays:
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--weight_decays {value}: each must be a number >= 0")

    def describe(self, n_runs: int) -> str:
        """Say what the runs of the grid differ in."""
        names = [field.name for field in fields(self)]
        varied = "; ".join(f"{name} {_spaced(getattr(self, name))}" for name in names)
        return f"varied over {n_runs} runs: {varied}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """One run of the grid: its folder name and its whole configuration."""

    name: str
    class_count: int
    config: IclConfig


def plan_runs(base: IclConfig, grid: Grid, *, unnamed: IclConfig | None = None) -> list[SweepRun]:
    """Return the grid's runs, few classes (the quick ones) first.

    A run's name depends on its own configuration, not on the rest of the grid: it says the class
    count, λ, and the seed and mode where they are not those of the configuration file.

    Args:
        base: every run's configuration but for what the grid varies.
        grid: what is varied.
        unnamed: the configuration whose seed and mode a name leaves out: that of the file, before
            flags; default ``base``.

    Raises:
        ValueError: a class count too small for the common and holdout classes, a bad λ or seed.
    """
    runs, unnamed = [], unnamed or base
    for count, mode, decay, seed in itertools.product(
        grid.class_counts, grid.l2_modes, grid.weight_decays, grid.seeds
    ):
        name = run_name(
            count,
            decay,
            seed=seed if seed != unnamed.seed else None,
            l2_mode=mode if mode != unnamed.optimizer.l2_mode else None,
        )
        overrides = {
            "data.generator_config.n_rare_classes": rare_classes(base, count),
            "optimizer.weight_decay": decay,
            "optimizer.l2_mode": mode,
            "seed": seed,
        }
        if base.data.example_type == "symbolic":
            overrides["data.symbolic_config.dataset_size"] = count
        runs.append(
            SweepRun(name=name, class_count=count, config=apply_overrides(base, overrides, name))
        )
    return runs


def found_in(folder: Path, runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the runs under the names that ``folder`` holds them by; see ``summaries.names_in``."""
    configs = {
        run.name: {**stored(run.config), "branch": None}  # what begins elsewhere is another run
        for run in runs
        if run.config.init.run is None
    }
    names = names_in(folder, configs, ("training.engine", "data.source", "training_steps"))
    return [replace(run, name=names.get(run.name, run.name)) for run in runs]


def stored(config: IclConfig) -> dict[str, Any]:
    """Return what ``config.json`` of a run holds of its configuration, see ``run_identity``."""
    tree = to_dict(config)
    del tree["init"]
    return tree


def rare_classes(base: IclConfig, class_count: int) -> int:
    """Return rare = class_count - common - holdout: "100" means a 100-way head, 90 trained."""
    generator = base.data.generator_config
    other = generator.n_common_classes + generator.n_holdout_classes
    if class_count <= other:
        raise ValueError(
            f"--class_counts {class_count}: must exceed the {generator.n_common_classes} common "
            f"and {generator.n_holdout_classes} holdout classes, {other} in all"
        )
    return class_count - other


def run_name(
    class_count: int, weight_decay: float, seed: int | None = None, l2_mode: str | None = None
) -> str:
    """Return the run's folder name.

    >>> run_name(1600, 3e-4), run_name(100, 0.01, seed=2), run_name(100, 1.0, l2_mode="sum_norms")
    ('class1600_wd3e-04', 'class100_wd0p01_seed2', 'class100_wd1p0_sum_norms')
    """
    name = f"class{class_count}_wd{weight_decay_tag(weight_decay)}"
    return name + (f"_seed{seed}" if seed is not None else "") + (f"_{l2_mode}" if l2_mode else "")


def weight_decay_tag(weight_decay: float) -> str:
    """Return λ as a folder-name part.

    >>> [weight_decay_tag(x) for x in (0, 3e-4, 1e-3, 0.01, 0.3, 1, 2.5e-4)]
    ['0', '3e-04', '1e-03', '0p01', '0p3', '1p0', '2.5e-04']
    """
    if weight_decay == 0:
        return "0"
    if weight_decay >= 0.01:
        return str(float(weight_decay)).replace(".", "p")
    digits = 0
    while float(f"{weight_decay:.{digits}e}") != weight_decay:
        digits += 1
    return f"{weight_decay:.{digits}e}"


#: Presets: the configuration file, then what overrides it; flags override both.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "config_path": Path("configs/icl/quick.py"),
        "class_counts": (100, 1600),
        "weight_decays": (0.0, 0.1, 1.0),
        "overrides": {},
    },
    "paper": {
        "config_path": Path("configs/icl/images_all_exemplars.py"),
        "class_counts": (100, 1600),
        "weight_decays": (0.0, 3e-4, 1e-3, 3e-3, 1e-2),
        "overrides": {"optimizer.name": "adamw", "training_steps": 50_000},
    },
    "extended": {
        "config_path": Path("configs/icl/images_all_exemplars.py"),
        "class_counts": (100, 1600),
        "weight_decays": (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 0.1, 0.3, 1.0),
        "overrides": {"optimizer.name": "adamw", "training_steps": 50_000},
    },
}

#: The class-count sweep of Figure 3a, likewise.
FIGURE3A_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "config_path": Path("configs/icl/images_all_exemplars.py"),
        "class_counts": (100, 200, 400, 800, 1600),
        "overrides": {"training_steps": 50_000},
    },
    "quick": {
        "config_path": Path("configs/icl/quick.py"),
        "class_counts": (100, 400, 1600),
        "overrides": {},
    },
}


def _spaced(values: Sequence[Any]) -> str:
    return " ".join(map(str, values))


def is_ours(config: Mapping[str, Any]) -> bool:
    """Say whether a ``config.json`` is one of in-context learning."""
    data = config.get("data")
    generator = data.get("generator_config") if isinstance(data, Mapping) else None
    return isinstance(generator, Mapping) and "n_holdout_classes" in generator

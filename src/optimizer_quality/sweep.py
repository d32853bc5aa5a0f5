"""Optimizers by learning rates by seeds: plan, run side by side, choose on validation, compare.

The learning rate of each optimizer is the one with the highest mean validation accuracy; the test
set decides nothing. Each is compared with the best one by Welch's t-test over seeds at the 5 %
level, Holm-corrected for the number of comparisons; "not distinguishable" marks those that do not
differ.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer_quality.config import CifarConfig, with_optimizer
from optimizer_quality.experiment import LENGTH, Runtime, resolve_device, run
from optimizer_quality.packed import bytes_of, check_packable, run_pack
from optimizer_quality.runs_table import (
    RUNS_COLUMNS,
    Listed,
    list_runs,
    read_metrics,
    table_rows,
)
from trainrig.cli import PackSize
from trainrig.files import write_atomically
from trainrig.launch.options import LaunchOptions
from trainrig.packs import PlannedRun, fitting, keep_plan, make_plan, or_out_of_memory
from trainrig.packs import execute as execute_packs
from trainrig.runs import check_config
from trainrig.stats import LEVEL, holm, mean_and_sd, welch
from trainrig.summaries import exact, names_in, summary_lock, warn
from trainrig.sweep import Outcome
from trainrig.tracking.tables import write_table

SUMMARY_COLUMNS = (
    "optimizer",
    "lr",
    "differs",
    "n_in_grid",
    "n_seeds",
    "val_accuracy_mean",
    "val_accuracy_sd",
    "test_accuracy_mean",
    "test_accuracy_sd",
    "chosen",
    "against_best",
    "p_value",
)


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of the grid: its configuration and its directory's name."""

    name: str
    config: CifarConfig


def parse_grid(items: Sequence[str], lrs: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """Read ``NAME`` or ``NAME=LR,LR`` items into learning rates by optimizer.

    Raises:
        ValueError: not a number, or an optimizer without any learning rate.

    >>> parse_grid(["sgd=0.1,0.03", "adamw"], [1e-3])
    {'sgd': (0.1, 0.03), 'adamw': (0.001,)}
    """
    grid = {}
    for item in items:
        name, _, listed = item.partition("=")
        try:
            rates = tuple(float(text) for text in listed.split(",")) if listed else tuple(lrs)
        except ValueError:
            raise ValueError(f"--optimizers {item}: {listed!r} is no list of numbers") from None
        if not rates:
            raise ValueError(f"--optimizers {item}: no learning rate; write {name}=LR, or --lrs")
        if name in grid or len(set(rates)) < len(rates):
            raise ValueError(f"--optimizers {item}: given twice; name each optimizer and rate once")
        grid[name] = rates
    return grid


def plan_runs(
    base: CifarConfig,
    grid: dict[str, tuple[float, ...]],
    seeds: Sequence[int],
    *,
    unnamed: CifarConfig | None = None,
) -> list[SweepRun]:
    """Return the runs in the grid's order; every name and value is checked here.

    A name says the learning rate, the seed, and what else differs from ``unnamed``: the
    configuration of the file, before flags; default ``base``.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {' '.join(map(str, seeds))}: give one or more different values")
    runs = []
    for optimizer, rates in grid.items():
        for lr in rates:
            for seed in seeds:
                config = dataclasses.replace(with_optimizer(base, optimizer, lr), seed=seed)
                name = config.run_name(unnamed or base, always=("optimizer.lr",))
                runs.append(SweepRun(name, config))
    return runs


def found_in(folder: Path, runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the runs under the names that ``folder`` holds them by; see ``summaries.names_in``."""
    configs = {
        run.name: {**run.config.identity(), "branch": None}  # what begins elsewhere is another run
        for run in runs
        if run.config.init.run is None
    }
    names = names_in(folder, configs, ("engine",))
    return [dataclasses.replace(run, name=names.get(run.name, run.name)) for run in runs]


def execute(
    runs: Sequence[SweepRun],
    folder: Path,
    runtime: Runtime,
    options: LaunchOptions,
    pack: PackSize = 1,
) -> Iterator[Outcome]:
    """Train what is not finished yet, by the launcher of ``options``; yield each outcome.

    Args:
        runs: of ``plan_runs``.
        folder: of the run directories.
        runtime: of every run.
        options: who carries the runs or packs out.
        pack: most runs trained as one program, or ``auto``; see ``trainrig.packs``.

    Raises:
        ValueError: the folder holds a run of another configuration, an optimizer that cannot be
            packed, or packs of another size.
    """
    folder = folder.resolve()  # a job may start in another folder
    if pack != 1:
        runs = [
            SweepRun(one.name, dataclasses.replace(one.config, engine="packed")) for one in runs
        ]
    for one in runs:
        if not runtime.overwrite:
            known = {k: v for k, v in one.config.identity().items() if k != "device"}
            check_config(folder / one.name, known, partly=True, length=LENGTH)
    entries = [
        PlannedRun(
            name=one.name,
            length=one.config.num_epochs,
            key=_pack_key(one.config),
            member=(one.config, folder / one.name),
        )
        for one in runs
    ]
    jobs = options.jobs or 1
    plan = make_plan(
        entries,
        folder,
        pack,
        choose=lambda: _choose_size(runs, jobs),
        overwrite=runtime.overwrite,
        force=runtime.force_engine_change,
    )
    for config in {one.config.optimizer.type: one.config for one in runs}.values():
        if pack != 1:
            check_packable(config)
    if not options.dry_run:
        keep_plan(plan, folder, replace=runtime.overwrite or runtime.force_engine_change)
    yield from execute_packs(
        entries,
        folder,
        options,
        train_members,
        plan,
        overwrite=runtime.overwrite,
        runtime=runtime,
    )


def _pack_key(config: CifarConfig) -> str:
    """Return what runs of one pack have in common: all but seed and settings of the optimizer."""
    shared = {**config.identity(), "seed": None, "optimizer": config.optimizer.type}
    return json.dumps(shared, sort_keys=True)


def _choose_size(runs: Sequence[SweepRun], jobs: int) -> tuple[int, dict[str, int]]:
    """Return how many runs fit into the memory, see ``trainrig.packs.fitting``."""
    config = runs[0].config
    device = resolve_device(config.device, quiet=True)
    return fitting(bytes_of(config, device), device, runs=len(runs), jobs=jobs)


def train_members(
    members: Sequence[tuple[CifarConfig, Path]], packed: bool, runtime: Runtime, position: int
) -> str:
    """Train one run, or the runs of a pack, in this process and return a status."""
    del position  # of a progress bar, which these runs do not draw
    if packed or members[0][0].engine == "packed":
        return or_out_of_memory(lambda: run_pack(members, runtime))
    config, path = members[0]
    return run(config, runtime, path=path, log_path=path / "logs").status


def summarise(
    runs: Sequence[SweepRun], folder: Path, listed: Sequence[Listed]
) -> list[dict[str, Any]]:
    """Return one row per optimizer and learning rate with mean and standard deviation over seeds.

    Every run of ``folder`` counts, whichever call trained it (``listed``, of ``list_runs``); what
    cannot be compared with ``runs``, this call's, has rows of its own, which are never chosen.
    Diverged and failed runs count as absent, and a rate with any is never chosen over one with more
    finished seeds.
    """
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = {
        (one.config.optimizer.type, float(one.config.optimizer.lr or 0), ""): [] for one in runs
    }
    in_grid = dict.fromkeys(groups, 0)
    for one in listed:
        metrics, _ = read_metrics(folder / one.name)
        lr = one.config["optimizer"]["lr"] or metrics.get("optimizer", {}).get("lr", 0)
        key = (one.config["optimizer"]["type"], float(lr), one.differs)
        in_grid[key] = in_grid.get(key, 0) + bool(one.in_grid)
        groups.setdefault(key, [])
        if metrics:
            groups[key].append(metrics["final"])
    rows = [_group_row(*key, in_grid[key], finals) for key, finals in groups.items()]
    chosen = []
    for name in dict.fromkeys(row["optimizer"] for row in rows):
        own = [
            row
            for row in rows
            if row["optimizer"] == name and row["n_seeds"] and not row["differs"]
        ]
        if own:
            best = max(own, key=lambda row: (row["n_seeds"], row["val_accuracy_mean"]))
            best["chosen"] = 1
            chosen.append((best, _test_accuracies(groups[best["optimizer"], best["lr"], ""])))
    _compare(chosen)
    return rows


def _test_accuracies(finals: Sequence[dict[str, Any]]) -> list[float]:
    return [final["test"]["accuracy"] for final in finals]


def _group_row(
    optimizer: str, lr: float, differs: str, in_grid: int, finals: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS)
    row |= {"optimizer": optimizer, "lr": lr, "differs": differs or None, "n_in_grid": in_grid}
    row |= {"n_seeds": len(finals), "chosen": 0}
    for split in ("val", "test") if finals else ():
        mean, sd = mean_and_sd([final[split]["accuracy"] for final in finals])
        row[f"{split}_accuracy_mean"] = mean
        row[f"{split}_accuracy_sd"] = sd if len(finals) > 1 else None
    return row


def _compare(chosen: list[tuple[dict[str, Any], list[float]]]) -> None:
    """Mark each chosen row against the one with the best mean test accuracy."""
    if not chosen:
        return
    best, best_values = max(chosen, key=lambda pair: pair[0]["test_accuracy_mean"])
    best["against_best"] = "best"
    others = [(row, values) for row, values in chosen if row is not best]
    corrected = holm([welch(values, best_values).p for _, values in others])
    for (row, _), p in zip(others, corrected, strict=True):
        if math.isnan(p):
            row["against_best"] = "not tested: one seed"
        else:
            row["against_best"] = "worse" if p < LEVEL else "not distinguishable"
            row["p_value"] = p


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the chosen rows as a Markdown table, best first."""
    lines = [
        "| optimizer | lr (chosen on validation) | seeds | validation | test | against the best |",
        "|---|---|---|---|---|---|",
    ]
    chosen = [row for row in rows if row["chosen"]]
    for row in sorted(chosen, key=lambda row: -row["test_accuracy_mean"]):
        val, test = (_spread(row, split) for split in ("val", "test"))
        lines.append(
            f"| {row['optimizer']} | {exact(row['lr'])} | {row['n_seeds']} | {val} | {test} "
            f"| {row['against_best']} |"
        )
    tested = sum(row["p_value"] is not None for row in chosen)
    among = f", Holm-corrected over {tested} comparisons" if tested > 1 else ""
    if tested:
        lines += ["", f"Welch's t-test of the test accuracies over seeds, 5 % level{among}."]
    return "\n".join(lines) + "\n"


def _spread(row: dict[str, Any], split: str) -> str:
    mean, sd = row[f"{split}_accuracy_mean"], row[f"{split}_accuracy_sd"]
    return f"{100 * mean:.2f} %" + (f" ± {100 * sd:.2f}" if sd is not None else "")


def write_summary(runs: Sequence[SweepRun], folder: Path, *, passing: bool = False) -> str:
    """Write ``runs.csv``, ``summary.csv`` and ``summary.md`` and return the latter's text.

    Args:
        runs: of this call's grid; the tables list every run of the folder and mark these.
        folder: of the runs.
        passing: of a sweep at work, whose next call writes the tables again: another process that
            writes them is not waited for, and an unreadable run is named at the end alone.
    """
    with summary_lock(folder, wait=not passing) as mine:
        if not mine:
            return ""
        listed, unread = list_runs(folder, [one.name for one in runs])
        gone = [why for one in listed if (why := read_metrics(folder / one.name)[1])]
        rows = summarise(runs, folder, listed)
        write_table(table_rows(folder, listed), folder / "runs.csv", RUNS_COLUMNS)
        write_table(rows, folder / "summary.csv", SUMMARY_COLUMNS)
        text = markdown(rows)
        left = sorted({row["differs"] for row in rows if row["differs"]})
        apart = [f"\nNot compared: runs with {why}." for why in left]
        apart += [f"\nNot counted: {why}." for why in gone]
        text += "".join(apart) + "\n" * bool(apart)
        write_atomically(folder / "summary.md", text)
    warn(() if passing else [*unread, *gone])
    return text

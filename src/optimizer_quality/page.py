"""A comparison's page: a table of answers, then every figure with what it shows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optimizer_quality.figures import pair_groups
from trainrig.report.content import Picture, Section, Table
from trainrig.report.describers import Description
from trainrig.stats import LEVEL, mean_and_sd, permutation_test

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
CAPTIONS = {
    "curves": (
        "How they got there",
        "Loss and accuracy by epoch. Thin: one seed. Thick: mean over seeds.",
    ),
    "accuracy": (
        "Where they arrived",
        "Dots: seeds. Bar: mean ± standard deviation. The test set decided nothing.",
    ),
    "disagreement": (
        "Do they predict the same?",
        "Share of test images for which two networks name different classes. Pairs of different "
        "optimizers mean something only against pairs of different seeds. Those of one seed share "
        "split, start and order of images, and stand apart.",
    ),
    "barrier": (
        "Are they connected?",
        "Test loss on the straight line between two solutions. A bump is a barrier. Right: "
        "BatchNorm statistics re-estimated at every point, without which the middle of a line is "
        "unfairly bad.",
    ),
    "cka": (
        "Do layers represent the same?",
        "Unbiased linear CKA of activations: 1 is equal up to rotation and scale, 0 unrelated.",
    ),
    "hessian": (
        "How sharp are they?",
        "Largest eigenvalues (Lanczos) and trace (Hutchinson) of the Hessian of the loss over "
        "fixed training images.",
    ),
    "calibration": (
        "Do they know what they know?",
        "Accuracy against confidence in 15 bins, those of 20 images and more; the dashed line is "
        "perfect calibration.",
    ),
    "weights": ("Weights, layer by layer", "Mean ± standard deviation over seeds."),
    "activations": ("Activations, layer by layer", "Over the probe images; mean ± sd over seeds."),
    "features": (
        "What excites each class",
        "Images found by ascent on each class's logit; one row per optimizer, first seed.",
    ),
}
ENOUGH_SEEDS = 3
SPREADS = (
    "Mean ± standard deviation: of optimizers over seeds, of pairs over pairs. Pairs share runs, "
    "so their number is no number of repeats."
)


def summary_rows(tables: Tables) -> list[dict[str, str]]:
    """Return one row per optimizer: mean ± standard deviation of its headline figures."""
    wanted = (
        ("accuracy", "test_accuracy", "test accuracy", 100, "{:.2f}", " %"),
        ("accuracy", "train_loss", "training loss", 1, "{:.3f}", ""),
        ("calibration", "ece", "calibration error", 100, "{:.2f}", " %"),
        ("hessian", "eigenvalue", "top eigenvalue", 1, "{:.3g}", ""),
        ("hessian", "trace", "Hessian trace", 1, "{:.3g}", ""),
    )
    rows = []
    for name in dict.fromkeys(row["optimizer"] for row in tables.get("accuracy", ())):
        shown = {"optimizer": name}
        for table, key, title, scale, form, unit in wanted:
            found = {  # the first row of each run: rank 1, or any bin
                row["run"]: scale * row[key]
                for row in reversed(tables.get(table, ()))
                if row["optimizer"] == name
            }
            if found:
                shown["seeds"] = str(len(found))
                shown[title] = _spread(list(found.values()), form) + unit
        rows.append(shown)
    return rows


def pair_rows(tables: Tables) -> list[dict[str, str]]:
    """Return one row per kind of pair: disagreement, barriers and last-block CKA."""
    groups = {name: pair_groups(rows) for name, rows in _pairs(tables)}
    rows = []
    for kind in groups.get("disagreement", {}):
        shown = {"pair": kind}
        own = {name: found.get(kind, []) for name, found in groups.items()}
        values = [100 * row["disagreement"] for row in own["disagreement"]]
        shown["pairs"] = str(len(values))
        shown["runs"] = str(len({r[k] for r in own["disagreement"] for k in ("run_a", "run_b")}))
        shown["disagreement"] = _spread(values, "{:.2f}") + " %"
        for mode in ("interpolated", "re-estimated"):
            lines = [r for r in own.get("barrier", ()) if r["batchnorm"] == mode and r["t"] == 0]
            if lines:
                found = [row["barrier"] for row in lines]
                shown[f"barrier, BatchNorm {mode}"] = _spread(found, "{:.2f}")
        last = [r["cka"] for r in own.get("cka", ()) if r["layer_a"] == r["layer_b"] == "pool"]
        if last:
            shown["CKA before the last layer"] = _spread(last, "{:.3f}")
        rows.append(shown)
    return rows


def _pairs(tables: Tables) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    return [(name, rows) for name, rows in tables.items() if rows and "kind" in rows[0]]


def _spread(values: Sequence[float], form: str) -> str:
    mean, sd = mean_and_sd(values)
    return form.format(mean) + (f" ± {form.format(sd)}" if len(values) > 1 else "")


def verdict(tables: Tables) -> str:
    """Return the one-sentence answer to the question, from the disagreement table.

    Between optimizers only pairs of different seeds count, where there are any: both sides then
    differ in their seeds, and one of them in its optimizer as well.
    """
    rows = tables.get("disagreement", ())
    crossed = [row for row in rows if row["between"] == "optimizers"]
    fair = [row for row in crossed if not row["same_seed"]] or crossed
    by = {
        "seeds": [100 * row["disagreement"] for row in rows if row["between"] == "seeds"],
        "optimizers": [100 * row["disagreement"] for row in fair],
    }
    if not all(by.values()):
        return "No verdict: it needs two seeds of one optimizer and two optimizers."
    change = mean_and_sd(by["optimizers"])[0] - mean_and_sd(by["seeds"])[0]
    shown = {
        key: f"{_spread(values, '{:.1f}')} % of the test images ({len(values)} "
        f"{'pair' if len(values) == 1 else 'pairs'})"
        for key, values in by.items()
    }
    return (
        f"Networks of different optimizers name different classes for {shown['optimizers']}, "
        f"networks of one optimizer with different seeds for {shown['seeds']}: the optimizer "
        f"changes what the seed alone does by {change:+.1f} points."
        + _tested(tables)
        + _caution(tables)
    )


def _tested(tables: Tables) -> str:
    """Return whether chance makes such a difference; nothing where all pairs share their seed.

    The unit is the run: pairs share runs, so they are no independent repeats. The optimizers of
    whole runs are exchanged, and pairs of one seed are left out on both sides.
    """
    names = {row["run"]: row["optimizer"] for row in tables.get("accuracy", ())}
    pairs = [
        (row["run_a"], row["run_b"], row["disagreement"])
        for row in tables["disagreement"]
        if not row["same_seed"] and {row["run_a"], row["run_b"]} <= names.keys()
    ]

    def statistic(labels: Sequence[Hashable]) -> float:
        label = dict(zip(names, labels, strict=True))
        sides: dict[bool, list[float]] = {True: [], False: []}
        for a, b, value in pairs:
            sides[label[a] == label[b]].append(value)
        return mean_and_sd(sides[False])[0] - mean_and_sd(sides[True])[0]

    found = permutation_test(list(names.values()), statistic, seed=0)
    if math.isnan(found.p):
        return ""
    drawn = "all" if found.exact else "random, seed 0"
    verdict = "" if found.p < LEVEL else ", so no difference is shown"
    return (
        f" Permutation test over the {len(names)} runs ({drawn}, {found.relabellings} "
        f"relabellings): p = {found.p:.2g}{verdict}."
    )


def _caution(tables: Tables) -> str:
    """Return a warning where an optimizer has fewer seeds than a spread needs, else nothing."""
    rows = tables.get("accuracy", ())
    seeds: dict[str, set[int]] = {
        name: set() for name in dict.fromkeys(row["optimizer"] for row in rows)
    }
    for row in rows:
        seeds[row["optimizer"]].add(row["seed"])
    few = [f"{name} {len(found)}" for name, found in seeds.items() if len(found) < ENOUGH_SEEDS]
    if not few:
        return ""
    return f" Fewer than {ENOUGH_SEEDS} seeds ({', '.join(few)}): read no difference into it."


def describe_comparison(tables: Tables, folder: Path, notes: Sequence[str]) -> Description:
    """Return the description of a comparison.

    Args:
        tables: rows by measure.
        folder: where ``{measure}.png`` are.
        notes: lines on data, runs and settings.
    """
    answers = [Table(rows) for rows in (summary_rows(tables), pair_rows(tables)) if rows]
    figures = [
        Section(title, [Picture(folder / f"{name}.png", f"{name}.csv holds the values.")], text)
        for name, (title, text) in CAPTIONS.items()
        if name in tables and (folder / f"{name}.png").exists()
    ]
    return Description(
        title="Do optimizers find different solutions?",
        lead=verdict(tables),
        notes=notes,
        sections=[Section("In figures", answers, SPREADS), *figures],
        whole=True,
    )

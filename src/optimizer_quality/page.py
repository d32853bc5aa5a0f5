"""A comparison's page: a table of answers, then every figure with what it shows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from optimizer_quality.figures import pair_groups
from trainrig.report.content import Picture, Section, Table
from trainrig.report.describers import Description
from trainrig.stats import LEVEL, hedges_g, holm, mean_and_sd, permutation_test, welch

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
        "Test loss on the straight line between two solutions. A bump is a barrier. Re-estimated: "
        "BatchNorm statistics measured at every point, without which the middle of a line is "
        "unfairly bad. Aligned: the channels of the second network in the order that matches the "
        "first, since networks that differ in this order alone compute the same.",
    ),
    "cka": (
        "Do layers represent the same?",
        "Unbiased linear CKA of activations: 1 is equal up to rotation and scale, 0 unrelated.",
    ),
    "hessian": (
        "How sharp are they?",
        "Largest eigenvalues (Lanczos) and trace (Hutchinson) of the Hessian of the loss over "
        "fixed training images. A convolution in front of a BatchNorm can be scaled at will "
        "without changing any output, and the plain eigenvalues change with it; those relative to "
        "the filters' norms do not, so only these say something of the solution.",
    ),
    "calibration": (
        "Do they know what they know?",
        "Accuracy against confidence in 15 bins, those of 20 images and more; the dashed line is "
        "perfect calibration.",
    ),
    "robustness": (
        "Do they hold on shifted images?",
        "Accuracy on corrupted test images by strength; mean ± standard deviation over seeds.",
    ),
    "shift": (
        "Do they part on shifted images?",
        "Share of corrupted test images for which two networks name different classes.",
    ),
    "pruning": (
        "How many weights do they need?",
        "Accuracy with the smallest weights set to 0, without retraining. The panel relative to "
        "each filter's norm does not depend on the scale of the filters.",
    ),
    "classes": (
        "What do the last features share across classes?",
        "Mean cosine of the last features of two images, by their classes; mean over seeds.",
    ),
    "probes": (
        "Where does the class become readable?",
        "Accuracy of a linear read-out of each layer's pooled features, fitted on training images.",
    ),
    "spectra": (
        "How many directions do the kernels use?",
        "Singular values relative to the largest; mean over seeds.",
    ),
    "weights": ("Weights, layer by layer", "Mean ± standard deviation over seeds."),
    "activations": ("Activations, layer by layer", "Over the probe images; mean ± sd over seeds."),
    "features": (
        "What excites each class",
        "Images found by ascent on each class's logit; one row per optimizer, first seed.",
    ),
}
ENOUGH_SEEDS = 3
#: Optimizers up to which every pair is tested.
MOST_PAIRED = 3
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
        for coordinates, title in (("plain", "top eigenvalue"), ("filter", "per filter norm")):
            values = [
                row["eigenvalue"]
                for row in tables.get("hessian", ())
                if (row["optimizer"], row["rank"]) == (name, 1)
                and row.get("coordinates", "plain") == coordinates
            ]
            if values:
                shown[title] = _spread(values, "{:.3g}")
        rows.append(shown)
    return rows


def run_measures(tables: Tables) -> dict[str, dict[str, float]]:
    """Return the figures of single runs that a claim may rest on: title → run → value.

    None depends on the scale of filters in front of a BatchNorm, which no output depends on; the
    plain Hessian does, and is left out.
    """
    found: dict[str, dict[str, list[float]]] = {}

    def add(title: str, table: str, key: str, **wanted: Any) -> None:
        for row in tables.get(table, ()):
            fits = all(row.get(name) == value for name, value in wanted.items())
            if fits and row.get(key) is not None:
                found.setdefault(title, {}).setdefault(row["run"], []).append(row[key])

    add("test accuracy", "accuracy", "test_accuracy")
    add("loss on clean training images", "accuracy", "train_loss")
    add("calibration error", "calibration", "ece")
    add("top eigenvalue per filter norm", "hessian", "eigenvalue", coordinates="filter", rank=1)
    add("top eigenvalue per weight", "hessian", "eigenvalue", coordinates="adaptive", rank=1)
    add("mean angle from the start", "weights", "angle_from_start")
    add("mean effective rank of kernels", "weights", "effective_rank")
    add("effective rank of last features", "activations", "effective_rank", layer="pool")
    add("mean accuracy on corrupted images", "robustness", "accuracy")
    add("accuracy at 90 % sparsity", "pruning", "accuracy", scope="filter", sparsity=0.9)
    for row in tables.get("classes", ()):
        if row["class_a"] < row["class_b"] and row["cosine"] is not None:
            title = "cosine of features across classes"
            found.setdefault(title, {}).setdefault(row["run"], []).append(row["cosine"])
    return {
        title: {run: mean_and_sd(values)[0] for run, values in runs.items()}
        for title, runs in found.items()
    }


def effect_rows(tables: Tables) -> list[dict[str, str]]:
    """Return one row per measure and pair of optimizers: effect size, test, verdict; surest first.

    Welch's test over runs, Holm-corrected over all rows. More than three optimizers are compared
    with the one of the best validation accuracy only.
    """
    runs = {row["run"]: row["optimizer"] for row in tables.get("accuracy", ())}
    names = list(dict.fromkeys(runs.values()))
    chosen = list(combinations(names, 2))
    if len(names) > MOST_PAIRED:
        validation = {
            name: mean_and_sd(
                [r["val_accuracy"] for r in tables["accuracy"] if r["optimizer"] == name]
            )[0]
            for name in names
        }
        best = max(names, key=lambda name: validation[name])
        chosen = [(name, best) for name in names if name != best]
    tested = []
    for title, values in run_measures(tables).items():
        for pair in chosen:
            a, b = ([v for run, v in values.items() if runs.get(run) == name] for name in pair)
            p = welch(a, b).p
            if not math.isnan(p):
                tested.append((title, pair, (a, b), hedges_g(a, b), p))
    corrected = holm([p for *_, p in tested])
    rows = []
    for p, (title, (a, b), (own, other), effect, _) in sorted(
        zip(corrected, tested, strict=True), key=lambda entry: entry[0]
    ):
        interval = f"{effect.size:+.1f} ({effect.low:+.1f} to {effect.high:+.1f})"
        rows.append(
            {
                "measure": title,
                "optimizers": f"{a} - {b}",
                "first": _spread(own, "{:.3g}"),
                "second": _spread(other, "{:.3g}"),
                "effect in sd (95 %)": "-" if math.isnan(effect.size) else interval,
                "p, Holm": f"{p:.2g}",
                "beyond seeds": "differs" if p < LEVEL else "not shown",
            }
        )
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
        for mode in ("interpolated", "re-estimated", "aligned, re-estimated"):
            lines = [r for r in own.get("barrier", ()) if r["batchnorm"] == mode and r["t"] == 0]
            if lines:
                found = [row["barrier"] for row in lines]
                shown[f"barrier, {mode}"] = _spread(found, "{:.2f}")
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
        + _beyond_seeds(tables)
        + _caution(tables)
    )


def _beyond_seeds(tables: Tables) -> str:
    """Return which measures of single runs differ between optimizers beyond seeds."""
    rows = effect_rows(tables)
    if not rows:
        return ""
    differing = list(dict.fromkeys(r["measure"] for r in rows if r["beyond seeds"] == "differs"))
    others = [m for m in dict.fromkeys(r["measure"] for r in rows) if m not in differing]
    text = f" Of {len(rows)} comparisons of single runs (Welch's test, Holm-corrected) "
    text += f"{sum(r['beyond seeds'] == 'differs' for r in rows)} differ beyond seeds"
    text += f": {', '.join(differing)}." if differing else "."
    if others and differing:
        text += f" Not shown to differ: {', '.join(others)}."
    if "loss on clean training images" in differing:
        text += (
            " The runs are not at equal training loss, so part of the rest may follow from that."
        )
    return text


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
    found = (effect_rows(tables), summary_rows(tables), pair_rows(tables))
    answers = [Table(rows) for rows in found if rows]
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

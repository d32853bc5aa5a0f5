"""The measures as tables: each is a function from solutions and images to rows.

A row is a plain dictionary; its columns are declared beside the function, in ``MEASURES``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer_quality.measures.barrier import loss_line
from optimizer_quality.measures.curvature import HessianOperator, hutchinson_trace, lanczos
from optimizer_quality.measures.features import maximise_activation
from optimizer_quality.measures.layers import (
    ACTIVATION_COLUMNS,
    WEIGHT_COLUMNS,
    activation_statistics,
    weight_statistics,
)
from optimizer_quality.measures.predictions import (
    accuracy,
    calibration,
    disagreement,
    predict,
    total_variation,
)
from optimizer_quality.measures.similarity import CkaMatrix, layer_grams
from optimizer_quality.solutions import Images, Pair, Solution, all_pairs
from trainrig.files import read_json, write_json

Row = dict[str, Any]
RUN = ("run", "optimizer", "seed")
PAIR = ("run_a", "run_b", "kind", "between", "same_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How thorough a comparison is.

    Attributes:
        n_probe: test images for CKA, activations and lines.
        n_hessian: training images that define the Hessian.
        n_statistics: training images to re-estimate BatchNorm on.
        n_top: eigenvalues.
        lanczos_steps: products spent on them.
        trace_probes: products spent on the trace.
        n_points: points of each line, both ends included.
        lines_per_kind: lines for each kind of pair, those of one seed apart; 0 takes all pairs.
        feature_steps: ascent steps of the feature images.
    """

    n_probe: int = 2000
    n_hessian: int = 1000
    n_statistics: int = 1000
    n_top: int = 5
    lanczos_steps: int = 20
    trace_probes: int = 8
    n_points: int = 11
    lines_per_kind: int = 3
    feature_steps: int = 96

    def __post_init__(self) -> None:
        """Check the ranges that would fail late."""
        if self.lanczos_steps < self.n_top:
            raise ValueError(f"lanczos_steps is {self.lanczos_steps}; at least {self.n_top}")
        if self.n_points < 3:
            raise ValueError(f"n_points is {self.n_points}; at least 3 are expected")


@dataclass(frozen=True, slots=True)
class Work:
    """What every measure is given; ``pictures`` takes the feature images for the figure.

    ``cache`` is the folder where the slow figures of single solutions stay, so that a comparison
    that was interrupted, or gets another run, does not compute them again.
    """

    solutions: Sequence[Solution]
    images: Images
    settings: Settings
    cache: Path
    pictures: dict[str, Tensor]
    logits: dict[str, Tensor]

    @property
    def pairs(self) -> list[Pair]:
        """Every pair of solutions."""
        return all_pairs(self.solutions)

    def predictions(self, solution: Solution) -> tuple[Tensor, Tensor]:
        """Return test logits and labels of a solution, computed once."""
        labels = torch.cat([labels for _, labels in self.images.test])
        if solution.name not in self.logits:
            self.logits[solution.name], _ = predict(solution.model, self.images.test)
        return self.logits[solution.name], labels


def curves(work: Work) -> list[Row]:
    """Loss and accuracy of every epoch, as the runs logged them."""
    keys = ("epoch", "split", "loss", "accuracy", "grad_norm")
    return [
        {**solution.labels, **{key: row.get(key) for key in keys}}
        for solution in work.solutions
        for row in solution.history
    ]


def accuracies(work: Work) -> list[Row]:
    """Final accuracy: logged for validation, measured again here for the test set."""
    rows = []
    for solution in work.solutions:
        logits, labels = work.predictions(solution)
        rows.append(
            {
                **solution.labels,
                "val_accuracy": solution.final["val"]["accuracy"],
                "test_accuracy": accuracy(logits, labels),
                "logged_test_accuracy": solution.final["test"]["accuracy"],
                "train_loss": solution.final["train"]["loss"],
                "test_loss": torch.nn.functional.cross_entropy(logits, labels).item(),
            }
        )
    return rows


def weights(work: Work) -> list[Row]:
    """Weight statistics per layer."""
    return [
        {**solution.labels, **row}
        for solution in work.solutions
        for row in weight_statistics(solution.model, solution.start)
    ]


def activations(work: Work) -> list[Row]:
    """Activation statistics per layer, on the probe images."""
    return [
        {**solution.labels, **row}
        for solution in work.solutions
        for row in activation_statistics(solution.model, work.images.probe)
    ]


def hessian(work: Work) -> list[Row]:
    """Top eigenvalues and trace of the Hessian, on the fixed training images."""
    return [
        {**solution.labels, **row}
        for solution in work.solutions
        for row in _remembered(work, solution, _spectrum)
    ]


def _spectrum(work: Work, solution: Solution) -> list[Row]:
    settings, operator = work.settings, HessianOperator(solution.model, work.images.train)
    spectrum = lanczos(
        operator, operator.like, n_top=settings.n_top, n_steps=settings.lanczos_steps
    )
    trace, error = hutchinson_trace(operator, operator.like, n_probes=settings.trace_probes)
    return [
        {
            "rank": rank,
            "eigenvalue": value,
            "error_bound": bound,
            "trace": trace,
            "trace_standard_error": error if math.isfinite(error) else None,
            "n_images": operator.n_images,
        }
        for rank, (value, bound) in enumerate(
            zip(spectrum.eigenvalues, spectrum.residuals, strict=True), start=1
        )
    ]


def _remembered(
    work: Work, solution: Solution, compute: Callable[[Work, Solution], list[Row]]
) -> list[Row]:
    """Return ``compute``'s rows, from the cache where weights, data and settings are the same."""
    settings = work.settings
    asked = [settings.n_hessian, settings.n_top, settings.lanczos_steps, settings.trace_probes]
    digest = hashlib.sha256(json.dumps([asked, solution.images["content_sha256"]]).encode())
    for value in solution.model.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    path = work.cache / f"{compute.__name__.strip('_')}_{digest.hexdigest()[:16]}.json"
    if not path.exists():
        write_json(path, compute(work, solution))
    return read_json(path)


def barriers(work: Work) -> list[Row]:
    """Loss on the straight line between solutions, with and without BatchNorm re-estimation."""
    rows = []
    taken: dict[tuple[str, int], int] = {}
    limit = work.settings.lines_per_kind or len(work.pairs)
    for pair in work.pairs:
        # Pairs of one seed start from the same weights, the best case for a line.
        group = (pair.kind, pair.labels["same_seed"])
        if taken.setdefault(group, 0) >= limit:
            continue
        taken[group] += 1
        for statistics in (None, work.images.statistics):
            line = loss_line(
                pair.a.model,
                pair.b.model,
                work.images.probe,
                n_points=work.settings.n_points,
                statistics_batches=statistics,
            )
            rows += [
                {
                    **pair.labels,
                    "batchnorm": "interpolated" if statistics is None else "re-estimated",
                    "t": t,
                    "loss": loss,
                    "accuracy": value,
                    "barrier": line.barrier,
                }
                for t, loss, value in zip(line.points, line.loss, line.accuracy, strict=True)
            ]
    return rows


def similarities(work: Work) -> list[Row]:
    """Unbiased linear CKA of every layer with every layer, for every pair."""
    names = work.solutions[0].model.layer_names
    matrices = {
        solution.name: CkaMatrix(list(layer_grams(solution.model, work.images.probe).values()))
        for solution in work.solutions
    }
    rows = []
    for pair in work.pairs:
        values = matrices[pair.a.name].between(matrices[pair.b.name]).tolist()
        rows += [
            {**pair.labels, "layer_a": names[i], "layer_b": names[j], "cka": value}
            for i, line in enumerate(values)
            for j, value in enumerate(line)
        ]
    return rows


def disagreements(work: Work) -> list[Row]:
    """How often two solutions name different classes, on the whole test set."""
    rows = []
    for pair in work.pairs:
        (a, labels), (b, _) = work.predictions(pair.a), work.predictions(pair.b)
        rows.append(
            {
                **pair.labels,
                "disagreement": disagreement(a, b),
                "total_variation": total_variation(a, b),
                "mean_error": 1 - (accuracy(a, labels) + accuracy(b, labels)) / 2,
            }
        )
    return rows


def calibrations(work: Work) -> list[Row]:
    """Calibration on the whole test set, one row per bin of confidence."""
    rows = []
    for solution in work.solutions:
        found = calibration(*work.predictions(solution))
        summary = {key: getattr(found, key) for key in ("ece", "nll", "brier", "confidence")}
        rows += [
            {
                **solution.labels,
                **summary,
                "bin_lower": lower,
                "n_images": count,
                "bin_confidence": confidence,
                "bin_accuracy": right,
            }
            for lower, count, confidence, right in found.bins
        ]
    return rows


def features(work: Work) -> list[Row]:
    """Images that excite each class's logit, for the first seed of each optimizer."""
    rows, seen = [], set()
    data = work.images.data
    channels, height, width = data.train_images.shape[1:]
    for solution in work.solutions:
        if solution.optimizer in seen:
            continue
        seen.add(solution.optimizer)
        pictures, answers = maximise_activation(
            solution.model,
            (channels, height, width),
            units=min(10, data.n_classes),
            n_steps=work.settings.feature_steps,
        )
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
        work.pictures[solution.optimizer] = (pictures * std + mean).clamp(0, 1)
        rows += [
            {**solution.labels, "class_index": k, "logit": value}
            for k, value in enumerate(answers.tolist())
        ]
    return rows


@dataclass(frozen=True, slots=True)
class Measure:
    """One table: what computes it and which columns it has."""

    compute: Callable[[Work], list[Row]]
    columns: tuple[str, ...]


LINE = ("batchnorm", "t", "loss", "accuracy", "barrier")
SPECTRUM = ("rank", "eigenvalue", "error_bound", "trace", "trace_standard_error", "n_images")
CALIBRATION = (
    *("ece", "nll", "brier", "confidence"),
    *("bin_lower", "n_images", "bin_confidence", "bin_accuracy"),
)
FINAL = ("val_accuracy", "test_accuracy", "logged_test_accuracy", "train_loss", "test_loss")
MEASURES = {
    "curves": Measure(curves, (*RUN, "epoch", "split", "loss", "accuracy", "grad_norm")),
    "accuracy": Measure(accuracies, (*RUN, *FINAL)),
    "disagreement": Measure(
        disagreements, (*PAIR, "disagreement", "total_variation", "mean_error")
    ),
    "barrier": Measure(barriers, (*PAIR, *LINE)),
    "cka": Measure(similarities, (*PAIR, "layer_a", "layer_b", "cka")),
    "hessian": Measure(hessian, (*RUN, *SPECTRUM)),
    "calibration": Measure(calibrations, (*RUN, *CALIBRATION)),
    "weights": Measure(weights, (*RUN, *WEIGHT_COLUMNS)),
    "activations": Measure(activations, (*RUN, *ACTIVATION_COLUMNS)),
    "features": Measure(features, (*RUN, "class_index", "logit")),
}

"""The measures as tables: each is a function from solutions and images to rows.

A row is a plain dictionary; its columns are declared beside the function, in ``MEASURES``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer_quality.measures.alignment import match_channels, reordered
from optimizer_quality.measures.barrier import loss_line, mean_loss
from optimizer_quality.measures.curvature import (
    COORDINATES,
    HessianOperator,
    hutchinson_traces,
    lanczos,
)
from optimizer_quality.measures.features import maximise_activation
from optimizer_quality.measures.layers import (
    ACTIVATION_COLUMNS,
    WEIGHT_COLUMNS,
    activation_statistics,
    singular_values,
    weight_statistics,
)
from optimizer_quality.measures.predictions import (
    accuracy,
    calibration,
    disagreement,
    error_consistency,
    predict,
    total_variation,
)
from optimizer_quality.measures.pruning import SCOPES, SPARSITIES, pruned
from optimizer_quality.measures.representations import (
    class_similarity,
    pooled_features,
    probe_accuracy,
)
from optimizer_quality.measures.robustness import CORRUPTIONS, N_STRENGTHS
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
        n_statistics: training images to re-estimate BatchNorm on, and to fit linear probes on.
        n_clean: training images that the final network's loss is measured on.
        n_shift: test images that are corrupted.
        n_top: eigenvalues.
        lanczos_steps: products spent on them.
        trace_probes: products spent on the trace.
        n_points: points of each line, both ends included.
        lines_per_kind: lines for each kind of pair, those of one seed apart; 0 takes all pairs.
        feature_steps: ascent steps of the feature images.
    """

    n_probe: int = 2000
    n_hessian: int = 500
    n_statistics: int = 1000
    n_clean: int = 5000
    n_shift: int = 1000
    n_top: int = 3
    lanczos_steps: int = 12
    trace_probes: int = 8
    n_points: int = 7
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
    shifted: dict[tuple[str, str, int], Tensor]
    features: dict[str, tuple[dict[str, Tensor], Tensor]]

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

    def shifted_predictions(
        self, solution: Solution, corruption: str, strength: int
    ) -> tuple[Tensor, Tensor]:
        """Return logits and labels of corrupted test images, computed once."""
        key = (solution.name, corruption, strength)
        pixels, labels = self.images.pixels(self.settings.n_shift)
        if key not in self.shifted:
            corrupted = CORRUPTIONS[corruption](pixels, strength)
            batches = self.images.normalised(corrupted, labels)
            self.shifted[key], _ = predict(solution.model, batches)
        return self.shifted[key], labels

    def probe_features(self, solution: Solution) -> tuple[dict[str, Tensor], Tensor]:
        """Return the features of the probe images by layer, and the labels, computed once."""
        if solution.name not in self.features:
            self.features[solution.name] = pooled_features(solution.model, self.images.probe)
        return self.features[solution.name]


def curves(work: Work) -> list[Row]:
    """Loss and accuracy of every epoch, as the runs logged them."""
    keys = ("epoch", "split", "loss", "accuracy", "grad_norm")
    return [
        {**solution.labels, **{key: row.get(key) for key in keys}}
        for solution in work.solutions
        for row in solution.history
    ]


def accuracies(work: Work) -> list[Row]:
    """Final accuracy: logged for validation, measured again here for the test set.

    ``train_loss`` is that of the final network on training images as they are;
    ``running_train_loss`` is what the last epoch logged: a mean over augmented batches, in training
    mode, of a network that still moved.
    """
    rows = []
    for solution in work.solutions:
        loss, right = mean_loss(solution.model, work.images.clean)
        logits, labels = work.predictions(solution)
        rows.append(
            {
                **solution.labels,
                "val_accuracy": solution.final["val"]["accuracy"],
                "test_accuracy": accuracy(logits, labels),
                "logged_test_accuracy": solution.final["test"]["accuracy"],
                "train_loss": loss,
                "train_accuracy": right,
                "running_train_loss": solution.final["train"]["loss"],
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
    """Top eigenvalues and trace of the Hessian, plain and relative, on fixed training images."""
    return [
        {**solution.labels, **row}
        for solution in work.solutions
        for row in _remembered(work, solution, _spectrum)
    ]


def _spectrum(work: Work, solution: Solution) -> list[Row]:
    settings, operator = work.settings, HessianOperator(solution.model, work.images.train)
    diagonals = {name: make(operator.parameters) for name, make in COORDINATES.items()}
    traces = hutchinson_traces(operator, list(diagonals.values()), n_probes=settings.trace_probes)
    rows = []
    for (name, d), (trace, error) in zip(diagonals.items(), traces, strict=True):
        spectrum = lanczos(
            partial(_relative_product, operator, d),
            operator.like,
            n_top=settings.n_top,
            n_steps=settings.lanczos_steps,
        )
        rows += [
            {
                "coordinates": name,
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
    return rows


def _relative_product(operator: HessianOperator, d: Tensor, vector: Tensor) -> Tensor:
    """Return ``D H D v``."""
    return d * operator(d * vector)


def _remembered(
    work: Work, solution: Solution, compute: Callable[[Work, Solution], list[Row]]
) -> list[Row]:
    """Return ``compute``'s rows, from the cache where weights, data and settings are the same."""
    settings = work.settings
    asked = [
        list(COORDINATES),
        settings.n_hessian,
        settings.n_top,
        settings.lanczos_steps,
        settings.trace_probes,
    ]
    digest = hashlib.sha256(json.dumps([asked, solution.images["content_sha256"]]).encode())
    for value in solution.model.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    path = work.cache / f"{compute.__name__.strip('_')}_{digest.hexdigest()[:16]}.json"
    if not path.exists():
        write_json(path, compute(work, solution))
    return read_json(path)


def barriers(work: Work) -> list[Row]:
    """Loss on the straight line between solutions: plain, BatchNorm re-estimated, and aligned.

    ``aligned, re-estimated`` has the second one's channels in the order that matches the first's.
    """
    rows = []
    taken: dict[tuple[str, int], int] = {}
    limit = work.settings.lines_per_kind or len(work.pairs)
    for pair in work.pairs:
        # Pairs of one seed start from the same weights, the best case for a line.
        group = (pair.kind, pair.labels["same_seed"])
        if taken.setdefault(group, 0) >= limit:
            continue
        taken[group] += 1
        orders = match_channels(pair.a.model, pair.b.model, work.images.statistics)
        aligned = reordered(pair.b.model, orders)
        for mode, end, statistics in (
            ("interpolated", pair.b.model, None),
            ("re-estimated", pair.b.model, work.images.statistics),
            ("aligned, re-estimated", aligned, work.images.statistics),
        ):
            line = loss_line(
                pair.a.model,
                end,
                work.images.probe,
                n_points=work.settings.n_points,
                statistics_batches=statistics,
            )
            rows += [
                {
                    **pair.labels,
                    "batchnorm": mode,
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
                "error_consistency": error_consistency(a, b, labels),
                "mean_error": 1 - (accuracy(a, labels) + accuracy(b, labels)) / 2,
            }
        )
    return rows


def robustness(work: Work) -> list[Row]:
    """Accuracy on corrupted test images; strength 0 is as they are."""
    rows = []
    for solution in work.solutions:
        logits, labels = work.predictions(solution)
        n = work.settings.n_shift
        plain = accuracy(logits[:n], labels[:n])
        for corruption in CORRUPTIONS:
            values = [
                accuracy(*work.shifted_predictions(solution, corruption, strength))
                for strength in range(1, N_STRENGTHS + 1)
            ]
            rows += [
                {
                    **solution.labels,
                    "corruption": corruption,
                    "strength": strength,
                    "accuracy": value,
                }
                for strength, value in enumerate((plain, *values))
            ]
    return rows


def shifted_disagreements(work: Work) -> list[Row]:
    """How often two solutions name different classes on corrupted test images."""
    rows = []
    for pair in work.pairs:
        for corruption in CORRUPTIONS:
            for strength in range(1, N_STRENGTHS + 1):
                a, labels = work.shifted_predictions(pair.a, corruption, strength)
                b, _ = work.shifted_predictions(pair.b, corruption, strength)
                rows.append(
                    {
                        **pair.labels,
                        "corruption": corruption,
                        "strength": strength,
                        "disagreement": disagreement(a, b),
                        "error_consistency": error_consistency(a, b, labels),
                    }
                )
    return rows


def pruning(work: Work) -> list[Row]:
    """Accuracy on the probe images after magnitude pruning, by sparsity."""
    rows = []
    for solution in work.solutions:
        for scope in SCOPES:
            for sparsity in SPARSITIES:
                model = pruned(solution.model, sparsity, scope)
                loss, value = mean_loss(model, work.images.probe)
                shown = {"scope": scope, "sparsity": sparsity, "loss": loss, "accuracy": value}
                rows.append({**solution.labels, **shown})
    return rows


def spectra(work: Work) -> list[Row]:
    """Singular values of every kernel, relative to its largest."""
    return [
        {**solution.labels, **row}
        for solution in work.solutions
        for row in singular_values(solution.model)
    ]


def classes(work: Work) -> list[Row]:
    """Mean cosine of the last features of two images, by their classes."""
    rows, n_classes = [], work.images.data.n_classes
    for solution in work.solutions:
        found, labels = work.probe_features(solution)
        matrix = class_similarity(found["pool"], labels, n_classes).tolist()
        rows += [
            {**solution.labels, "class_a": i, "class_b": j, "cosine": value}
            for i, line in enumerate(matrix)
            for j, value in enumerate(line)
        ]
    return rows


def probes(work: Work) -> list[Row]:
    """Accuracy of a linear read-out of every layer, fitted on training images."""
    rows, n_classes = [], work.images.data.n_classes
    for solution in work.solutions:
        train, train_labels = pooled_features(solution.model, work.images.statistics)
        test, test_labels = work.probe_features(solution)
        rows += [
            {
                **solution.labels,
                "layer": name,
                "accuracy": probe_accuracy(
                    (train[name], train_labels), (test[name], test_labels), n_classes
                ),
            }
            for name in train
        ]
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
SPECTRUM = (
    *("coordinates", "rank", "eigenvalue", "error_bound"),
    *("trace", "trace_standard_error", "n_images"),
)
CALIBRATION = (
    *("ece", "nll", "brier", "confidence"),
    *("bin_lower", "n_images", "bin_confidence", "bin_accuracy"),
)
FINAL = (
    *("val_accuracy", "test_accuracy", "logged_test_accuracy"),
    *("train_loss", "train_accuracy", "running_train_loss", "test_loss"),
)
SHIFT = ("corruption", "strength")
MEASURES = {
    "curves": Measure(curves, (*RUN, "epoch", "split", "loss", "accuracy", "grad_norm")),
    "accuracy": Measure(accuracies, (*RUN, *FINAL)),
    "disagreement": Measure(
        disagreements,
        (*PAIR, "disagreement", "total_variation", "error_consistency", "mean_error"),
    ),
    "robustness": Measure(robustness, (*RUN, *SHIFT, "accuracy")),
    "shift": Measure(shifted_disagreements, (*PAIR, *SHIFT, "disagreement", "error_consistency")),
    "barrier": Measure(barriers, (*PAIR, *LINE)),
    "cka": Measure(similarities, (*PAIR, "layer_a", "layer_b", "cka")),
    "hessian": Measure(hessian, (*RUN, *SPECTRUM)),
    "calibration": Measure(calibrations, (*RUN, *CALIBRATION)),
    "pruning": Measure(pruning, (*RUN, "scope", "sparsity", "loss", "accuracy")),
    "classes": Measure(classes, (*RUN, "class_a", "class_b", "cosine")),
    "probes": Measure(probes, (*RUN, "layer", "accuracy")),
    "weights": Measure(weights, (*RUN, *WEIGHT_COLUMNS)),
    "spectra": Measure(spectra, (*RUN, "layer", "rank", "singular_value")),
    "activations": Measure(activations, (*RUN, *ACTIVATION_COLUMNS)),
    "features": Measure(features, (*RUN, "class_index", "logit")),
}

"""Finished runs as networks to compare, and the images they are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import split_of
from optimizer_quality.experiment import make_model
from optimizer_quality.models import ResNet
from optimizer_quality.runs_table import read_metrics
from trainrig.checkpoint import load_dictionary
from trainrig.config import flatten, from_dict
from trainrig.data.device_loader import ImageBatches, Layout
from trainrig.data.image_sets import ImageSet, load_image_set
from trainrig.errors import CheckpointError
from trainrig.files import read_json
from trainrig.repeats import NOT_SETTINGS, count_once, repeated_text, setting_key
from trainrig.runs import read_status
from trainrig.summaries import warn

BATCH = 250
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Solution:
    """One finished run.

    Attributes:
        name: the run directory's name.
        config: its configuration.
        optimizer: its name, with what its runs in this comparison differ in besides the seed.
        model: the final network, in evaluation mode.
        start: the same network with the weights that training began from.
        history: rows of epoch, split, loss, accuracy.
        final: final metrics by split.
        images: what it was trained on (source and content hash).
    """

    name: str
    config: CifarConfig
    optimizer: str
    model: ResNet
    start: ResNet
    history: list[dict[str, Any]]
    final: dict[str, dict[str, float]]
    images: dict[str, Any]

    @property
    def labels(self) -> dict[str, Any]:
        """Return the columns that every table of single runs starts with."""
        return {"run": self.name, "optimizer": self.optimizer, "seed": self.config.seed}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two solutions and how they are related."""

    a: Solution
    b: Solution

    @property
    def kind(self) -> str:
        """``sgd seeds``, or ``adamw / sgd`` in alphabetical order."""
        names = sorted({self.a.optimizer, self.b.optimizer})
        return f"{names[0]} seeds" if len(names) == 1 else " / ".join(names)

    @property
    def labels(self) -> dict[str, Any]:
        """Return the columns that every table of pairs starts with."""
        same = int(self.a.config.seed == self.b.config.seed)
        return {
            "run_a": self.a.name,
            "run_b": self.b.name,
            "kind": self.kind,
            "between": "seeds" if self.a.optimizer == self.b.optimizer else "optimizers",
            "same_seed": same,
        }


def load_solution(path: Path) -> Solution:
    """Read one run directory.

    Raises:
        FileNotFoundError: no run there.
        ValueError: the run is not complete, or its metrics are damaged.
        CheckpointError: the weights do not fit the configured network.
    """
    stored = read_json(path / "config.json")
    status = read_status(path)["status"]
    if status != "complete":
        raise ValueError(f"{path}: the run is {status}; only complete runs can be compared")
    known = {field.name for field in fields(CifarConfig)} - {"device"}
    config = from_dict(CifarConfig, {k: v for k, v in stored.items() if k in known}, str(path))
    saved = load_dictionary(path / "final_model.pt")
    try:
        channels = saved["model"]["stem.0.weight"].shape[1]
        model, start = make_model(config, channels), make_model(config, channels)
        model.load_state_dict(saved["model"])
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path / 'final_model.pt'}: does not fit ({reason})") from None
    metrics, wrong = read_metrics(path)
    if wrong:
        raise ValueError(wrong)
    return Solution(
        path.name,
        config,
        config.optimizer.type,
        model.eval(),
        start,
        metrics.get("history", []),
        metrics["final"],
        stored["images"],
    )


def load_solutions(paths: Sequence[Path]) -> list[Solution]:
    """Read runs that can be compared: one network, one data set.

    Of runs that are equal in setting and seed the newest complete one is read, as stderr says.
    Settings of one optimizer that differ in more than the seed are told apart by their labels.

    Raises:
        ValueError: fewer than two runs, equal names, or runs of different networks or data.
    """
    once = count_once(
        dict.fromkeys(path.resolve() for path in paths),
        lambda path: setting_key(read_json(path / "config.json")),
        lambda path: (
            read_status(path)["status"] == "complete",
            (path / "status.json").stat().st_mtime_ns,
        ),
    )
    warn(repeated_text(str(path), 1 + len(older)) for path, older in once.dropped)
    solutions = _labelled([load_solution(path) for path in once.kept])
    if len(solutions) < 2:
        raise ValueError(f"{len(solutions)} run given; at least two are needed for a comparison")
    first = solutions[0]
    for other in solutions[1:]:
        for what, a, b in (
            ("model", first.config.model, other.config.model),
            ("data", first.images["content_sha256"], other.images["content_sha256"]),
        ):
            if a != b:
                raise ValueError(f"{other.name}: {what} {b}; {first.name} has {a}; compare equals")
    names = [solution.name for solution in solutions]
    if len(set(names)) < len(names):
        raise ValueError(f"runs {names}: names occur twice; rename the directories")
    return sorted(solutions, key=lambda s: (s.optimizer, s.config.seed))


def _labelled(solutions: Sequence[Solution]) -> list[Solution]:
    """Add to each optimizer's name the settings that its runs differ in, the seed left out."""
    flat = {id(solution): flatten(solution.config.identity()) for solution in solutions}
    labelled = []
    for solution in solutions:
        own = flat[id(solution)]
        alike = [flat[id(s)] for s in solutions if s.optimizer == solution.optimizer]
        parts = [
            f"{key.rpartition('.')[2]} {value}"
            for key, value in own.items()
            if key != "seed"
            and key.rpartition(".")[2] not in NOT_SETTINGS
            and any(other.get(key) != value for other in alike)
        ]
        labelled.append(replace(solution, optimizer=" ".join((solution.optimizer, *parts))))
    return labelled


def all_pairs(solutions: Sequence[Solution]) -> list[Pair]:
    """Return every pair, in the order of the solutions."""
    return [Pair(a, b) for a, b in combinations(solutions, 2)]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a comparison, normalised, in batches.

    Attributes:
        test: the whole test set.
        probe: its first images, for CKA, activations and the line between solutions.
        train: the first images that all runs were trained on, for the Hessian.
        statistics: the same, as many as BatchNorm is re-estimated on.
        clean: the same without augmentation, as many as the training loss is measured on.
        source: where they are from.
        data: the set itself.
        layout: how batches are made of it.
    """

    test: Batches
    probe: Batches
    train: Batches
    statistics: Batches
    clean: Batches
    source: str
    data: ImageSet
    layout: Layout

    def pixels(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first test images (N, C, H, W) in 0..1 and their labels."""
        images = self.data.test_images[:count].float() / 255
        return images, self.data.test_labels[:count]

    def normalised(self, pixels: Tensor, labels: Tensor) -> Batches:
        """Return images in 0..1 as a network takes them, in batches."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.data.mean, self.data.std))
        images = (pixels - mean) / std
        if self.layout.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def load_images(
    solutions: Sequence[Solution],
    data_dir: str | None,
    *,
    n_probe: int,
    n_hessian: int,
    n_statistics: int,
    n_clean: int,
) -> Images:
    """Read the set that the solutions were trained on.

    The split follows a run's seed, so only images that every run was trained on count as training
    images here: an image that one run held out says something else of it than of the others.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: it is another copy than the solutions were trained on.
    """
    config, recorded = solutions[0].config, solutions[0].images
    data = load_image_set(config.dataset, data_dir or config.data_dir, check=config.check_files)
    found = data.describe()["content_sha256"]
    if found != recorded["content_sha256"]:
        raise ValueError(
            f"{config.dataset}: content hash {found}; the runs were trained on "
            f"{recorded['content_sha256']} ({recorded['source']})"
        )

    layout = Layout(
        batch_size=BATCH, mean=data.mean, std=data.std, channels_last=config.channels_last
    )

    def batches(images: Tensor, labels: Tensor, indices: Tensor) -> Batches:
        return list(ImageBatches(images, labels, indices, layout))

    test = partial(batches, data.test_images, data.test_labels)
    train = partial(batches, data.train_images, data.train_labels)
    everything, common = torch.arange(len(data.test_labels)), common_images(solutions, data)
    return Images(
        test=test(everything),
        probe=test(everything[:n_probe]),
        train=train(common[:n_hessian]),
        statistics=train(common[:n_statistics]),
        clean=train(common[:n_clean]),
        source=str(recorded["source"]),
        data=data,
        layout=layout,
    )


def common_images(solutions: Sequence[Solution], data: ImageSet) -> Tensor:
    """Return the ascending indices of the images that every solution was trained on.

    Raises:
        ValueError: there are none.
    """
    n_items = len(data.train_labels)
    shared = set(range(n_items))
    for solution in solutions:
        shared &= set(split_of(solution.config, n_items)[0].tolist())
    if not shared:
        raise ValueError(
            "no image was in the training part of all runs; compare runs of one split "
            "(train_items, train_val_split) or fewer seeds"
        )
    return torch.tensor(sorted(shared))

"""Recorded generator settings (JSON) as partitions, generators and plans."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytorch_port.data.examples import (
    ExampleSource,
    ExemplarExamples,
    IndexExamples,
    SymbolicExamples,
)
from pytorch_port.data.generator import SeqGenerator
from pytorch_port.data.partition import ORDERING_SEED, ClassPartition
from pytorch_port.data.plan import PLANS, SequencePlan, make_plan

#: Settings besides those of the data set, with the reference's own defaults.
PARTITION_DEFAULTS = {
    "n_rare_classes": None,
    "n_common_classes": None,
    "n_holdout_classes": 0,
    "zipf_exponent": 1.0,
    "use_zipf_for_common_rare": False,
    "noise_scale": 0.1,
    "preserve_ordering_every_n": None,
    "random_seed": ORDERING_SEED,
}
SYMBOLIC_KEYS = {"dataset_size"}
IMAGE_KEYS = {"n_classes", "exemplars"}


class NotUnderstoodError(ValueError):
    """A recorded setting that this checker cannot judge; the case becomes unchecked."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded call.

    Attributes:
        partition, plan: what is drawn.
        noise_scale: of the generator.
        exemplars: drawings per class in image mode, ``None`` in symbolic mode.
        seed: of both streams.
        n: sequences recorded.
    """

    partition: ClassPartition
    plan: SequencePlan
    noise_scale: float
    exemplars: int | None
    seed: int
    n: int

    def generator(self, source: ExampleSource | None = None) -> SeqGenerator:
        """Return a freshly seeded generator, of symbols or of (class, exemplar) indices."""
        n = self.partition.n_data_classes
        if source is None:
            symbolic = self.exemplars is None
            source = SymbolicExamples(n) if symbolic else IndexExamples(n, self.exemplars)
        return SeqGenerator(source, self.partition, noise_scale=self.noise_scale, seed=self.seed)

    def image_source(self) -> ExampleSource:
        """Return tiny images whose two pixels are the class and the exemplar."""
        ids = np.indices((self.partition.n_data_classes, self.exemplars or 1))
        pixels = np.moveaxis(ids, 0, -1)[:, :, None, :, None]  # (N, n, H=1, W=2, C=1)
        return ExemplarExamples(pixels.astype(np.float32))

    @property
    def ways(self) -> int:
        """W of a few-shot call, else 0."""
        parts = self.plan.branches[0].parts
        return parts[0].ways if len(self.plan.branches) == 1 else 0


def read_partition(generator: Mapping[str, Any]) -> tuple[ClassPartition, int | None, float]:
    """Return the partition, the drawings per class (``None``: symbols) and the noise scale.

    Raises:
        NotUnderstoodError: a setting that is unknown, missing or of an unknown form.
    """
    keys = set(generator)
    unknown = sorted(keys - set(PARTITION_DEFAULTS) - SYMBOLIC_KEYS - IMAGE_KEYS)
    if unknown:
        raise NotUnderstoodError(f"generator settings {unknown} are not understood")
    if keys >= SYMBOLIC_KEYS and not keys & IMAGE_KEYS:
        size, exemplars = generator["dataset_size"], None
    elif keys >= IMAGE_KEYS and not keys & SYMBOLIC_KEYS:
        size, exemplars = generator["n_classes"], generator["exemplars"]
        if not isinstance(exemplars, int):
            raise NotUnderstoodError(f"exemplars {exemplars!r} is not a number")
    else:
        raise NotUnderstoodError("neither dataset_size nor n_classes and exemplars are given")
    values = {name: generator.get(name, default) for name, default in PARTITION_DEFAULTS.items()}
    if values["n_rare_classes"] is None or values["n_common_classes"] is None:
        raise NotUnderstoodError("n_rare_classes or n_common_classes is missing")
    noise_scale, seed = values.pop("noise_scale"), values.pop("random_seed")
    return ClassPartition(size, **values, ordering_seed=seed), exemplars, noise_scale


def read_call(case: Mapping[str, Any], n_default: int | None = None) -> Recorded:
    """Read the ``generator``, ``method``, ``args``, ``seed`` and ``n`` of a recorded case.

    Raises:
        NotUnderstoodError: a setting, method or argument that is unknown or missing.
        ValueError: settings that contradict one another.
    """
    n = case.get("n", n_default)
    missing = [key for key in ("generator", "method", "seed") if key not in case]
    if missing or n is None:
        raise NotUnderstoodError(f"{missing or ['n']} missing from the case")
    method, args = case["method"], case.get("args", {})
    if method not in PLANS:
        raise NotUnderstoodError(f"method {method!r} is not understood")
    unknown = sorted(set(args) - set(list(inspect.signature(PLANS[method]).parameters)[1:]))
    if unknown:
        raise NotUnderstoodError(f"{method} arguments {unknown} are not understood")
    partition, exemplars, noise_scale = read_partition(case["generator"])
    plan = make_plan(partition, method, args)
    return Recorded(partition, plan, noise_scale, exemplars, case["seed"], n)

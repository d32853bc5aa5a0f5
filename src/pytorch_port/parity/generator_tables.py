"""Recorded class orderings, partitions and Zipf weights, and the reference's known defect.

Keys tell their own parameters: ``ordering/default_rng<seed>/<N>``,
``partition/<name>/{rare,common,holdout,zipf_weights}``, ``<name><k>/class_ordering`` with blocks
of k. The number of classes in the data, which a partition's arrays do not hold, is taken from a
case with the same counts or searched for: a wrong one cannot give the recorded permutation.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytorch_port.data.examples import IndexExamples
from pytorch_port.data.generator import SeqGenerator
from pytorch_port.data.partition import ClassPartition, class_ordering, zipf_weights
from pytorch_port.parity.generator_settings import read_partition
from pytorch_port.parity.golden import Arrays, Golden
from trainrig.parity import Report

PARTITION_LISTS = ("rare", "common", "holdout")
WEIGHTS = "zipf_weights"
SIZES_TRIED = 5000
"""Numbers of classes tried for a partition that no case explains."""


def check_tables(
    golden: Golden, stem: str, cases: Mapping[str, Any], arrays: Arrays, report: Report
) -> set[str]:
    """Check the arrays that belong to no sequence case; return the keys accounted for."""
    settings = [
        case["generator"]
        for case in cases.values()
        if isinstance(case, Mapping) and isinstance(case.get("generator"), Mapping)
    ]
    used = _check_orderings(arrays, report)
    used |= _check_blocks(arrays, settings, report)
    used |= _check_partitions(arrays, settings, report)
    bugs = golden.names("reference_bugs")
    golden.met |= set(bugs) & {*arrays, *cases}
    used |= _check_defects(bugs, cases, arrays, settings, report)
    for name, note in cases.items():
        if not isinstance(note, Mapping):
            _check_note(f"{stem}/{name}", str(note), settings, report)
    return used


def _partitions(settings: list[Mapping[str, Any]]) -> list[ClassPartition]:
    """Return the partitions of the settings that are understood."""
    found = []
    for setting in settings:
        with contextlib.suppress(ValueError):
            found.append(read_partition(setting)[0])
    return found


def _check_orderings(arrays: Arrays, report: Report) -> set[str]:
    used = set()
    for key, array in arrays.items():
        match = re.fullmatch(r"ordering/default_rng(\d+)/(\d+)", key)
        if match:
            ours = class_ordering(int(match[2]), seed=int(match[1]))
            report.equal(key, "permutation", np.array_equal(ours, array))
            used.add(key)
    return used


def _check_blocks(arrays: Arrays, settings: list[Mapping[str, Any]], report: Report) -> set[str]:
    """Check orderings of blocks: of all classes, or of rare + common + holdout of a case."""
    used = set()
    for key, array in arrays.items():
        match = re.fullmatch(r"[^/]*?(\d+)/class_ordering", key)
        if not match:
            continue
        used.add(key)
        every = int(match[1])
        same_blocks = [s for s in settings if s.get("preserve_ordering_every_n") == every]
        candidates = [partition.order for partition in _partitions(same_blocks)]
        if len(array) % every == 0 and array.max() == len(array) - 1:
            candidates.append(class_ordering(len(array), every))
        if not candidates:
            report.unchecked(key, f"no case has blocks of {every}, and the list is not complete")
            continue
        found = any(np.array_equal(ours, array) for ours in candidates)
        report.equal(key, f"ordering in blocks of {every}", found)
    return used


def _check_partitions(
    arrays: Arrays, settings: list[Mapping[str, Any]], report: Report
) -> set[str]:
    names = sorted({key.split("/")[1] for key in arrays if key.startswith("partition/")})
    used = set()
    for name in names:
        prefix = f"partition/{name}"
        lists = {part: arrays.get(f"{prefix}/{part}") for part in PARTITION_LISTS}
        if lists["rare"] is None or lists["common"] is None:
            continue  # left over, hence listed as unknown
        used |= {f"{prefix}/{part}" for part, ids in lists.items() if ids is not None}
        found = _find_partition(name, lists, settings)
        for part, ids in lists.items():
            if ids is not None:
                ok = found is not None and np.array_equal(getattr(found, part), ids)
                detail = "" if ok else "no number of classes tried gives this list"
                report.equal(prefix, part, ok, detail)
        weights = arrays.get(f"{prefix}/{WEIGHTS}")
        if weights is not None:
            used.add(f"{prefix}/{WEIGHTS}")
            ours = zipf_weights(len(weights), _exponent(weights))
            deviation = float(np.abs(ours / weights - 1).max()) if len(weights) else 0.0
            report.check(prefix, "zipf_weights, relative", deviation, 1e-12)
    return used


@dataclass(frozen=True, slots=True)
class _Lists:
    """Rare, common and holdout classes cut from an ordering of ``size`` classes."""

    rare: np.ndarray
    common: np.ndarray
    holdout: np.ndarray

    @classmethod
    def cut(cls, order: np.ndarray, counts: Mapping[str, int]) -> _Lists:
        split = counts["rare"], counts["rare"] + counts["common"]
        return cls(
            order[: split[0]], order[split[0] : split[1]], order[len(order) - counts["holdout"] :]
        )


def _find_partition(
    name: str, lists: Mapping[str, np.ndarray | None], settings: list[Mapping[str, Any]]
) -> _Lists | None:
    """Return the partition that these lists are, whatever the size of its data set."""
    given = {part: ids for part, ids in lists.items() if ids is not None}
    counts = {part: len(given.get(part, ())) for part in PARTITION_LISTS}
    blocks = _blocks(given["rare"])
    for size in _sizes(name, given, counts, settings):
        for every in blocks:
            if every and size % every:
                continue
            found = _Lists.cut(class_ordering(size, every), counts)
            if all(np.array_equal(getattr(found, part), ids) for part, ids in given.items()):
                return found
    return None


def _blocks(ids: np.ndarray) -> list[int | None]:
    """Return the block sizes that the first ids allow; ``None`` is no blocks."""
    steps = np.diff(ids) != 1
    run = int(np.argmax(steps)) + 1 if steps.any() else len(ids)
    return [None, *(k for k in range(2, run + 1) if ids[0] % k == 0)]


def _sizes(
    name: str,
    given: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
    settings: list[Mapping[str, Any]],
) -> Iterator[int]:
    """Yield numbers of classes to try: likely ones, then all from the smallest possible on."""
    ids = np.concatenate(list(given.values()))
    smallest = max(int(ids.max(initial=-1)) + 1, sum(counts.values()))
    likely = [
        int(setting.get("dataset_size", setting.get("n_classes", 0)))
        for setting in settings
        if all(setting.get(f"n_{part}_classes", 0) == count for part, count in counts.items())
    ]
    likely += [int(number) for number in re.findall(r"\d+", name)]
    yield from (size for size in likely if size >= smallest)
    yield from range(smallest, smallest + SIZES_TRIED)


def _exponent(weights: np.ndarray) -> float:
    """Return the exponent of Zipf weights: their ratio last to first is M^exponent."""
    if len(weights) < 2:
        return 0.0
    return round(math.log(weights[-1] / weights[0]) / math.log(len(weights)), 9)


def _check_defects(
    bugs: tuple[str, ...],
    cases: Mapping[str, Any],
    arrays: Arrays,
    settings: list[Mapping[str, Any]],
    report: Report,
) -> set[str]:
    """Assert that recorded evidence of a defect of the reference is not what we compute."""
    used = set()
    for key in bugs:
        if key not in arrays:
            continue
        used.add(key)
        affected = [s for s in settings if s.get("use_zipf_for_common_rare")]
        if not key.endswith("/zipf_weights_after_rare") or not affected:
            report.unchecked(key, "evidence of a defect of the reference; not imitated")
            continue
        ours = [partition.zipf_weights for partition in _partitions(affected)]
        same_size = [weights for weights in ours if weights.shape == arrays[key].shape]
        kept = all(
            math.isclose(weights.sum(), 1) and not np.allclose(weights, arrays[key])
            for weights in same_size
        )
        report.equal(key, "defect not imitated", bool(same_size) and kept)
    return used


def _check_note(case: str, note: str, settings: list[Mapping[str, Any]], report: Report) -> None:
    """Judge a case that is only the error the reference raised."""
    affected = [s for s in settings if s.get("use_zipf_for_common_rare")]
    if "probabilities do not sum to 1" not in note or not affected:
        report.unchecked(case, f"not a case but a note: {note[:60]}")
        return
    for partition in _partitions(affected):
        generator = SeqGenerator(IndexExamples(partition.n_data_classes, None), partition)
        drawn = [
            next(generator.get_fewshot_seq(class_type=kind, shots=2, ways=2))
            for kind in ("rare", "zipfian", "rare", "zipfian")
        ]
        report.equal(case, "Zipfian draws work after rare ones", len(drawn) == 4)

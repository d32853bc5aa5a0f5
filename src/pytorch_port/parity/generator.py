"""Recorded random streams, partitions and statistics of the generator against ours.

``generator_sequences.*``: the exact generator, value by value, with the number of draws consumed.
``generator_statistics.*``: the exact generator's statistics reproduced, and the vectorised
sampler compared with them by p-values. Cases are those that the files hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pytorch_port.data.generator import Record, SeqGenerator
from pytorch_port.data.sampler import IndexSampler, SequenceSpec
from pytorch_port.parity.generator_settings import NotUnderstoodError, Recorded, read_call
from pytorch_port.parity.generator_tables import check_tables
from pytorch_port.parity.golden import Arrays, Golden, list_unknown
from pytorch_port.parity.sequence_statistics import (
    Sequences,
    largest_difference,
    p_values,
    summarize,
)
from trainrig.parity import Report

SEQUENCES, STATISTICS = "generator_sequences", "generator_statistics"
CALL_KEYS = {"generator", "method", "args", "seed", "n"}
DTYPE_KEYS = {"record_dtypes", "example_dtype"}
CONTROL_KEYS = {"np_state_tail", "py_state_tail"}
HEADER_KEYS = {"numpy", "python", "cases", "n"}

BOTH_WAYS = "frac_same_class_both_ways"

SAMPLED = 50_000
"""Sequences drawn by the vectorised sampler per case, if no other number is asked for."""
LARGEST_LOG_P = 4.0
"""A case fails where its smallest p-value, Bonferroni-corrected, is below 1e-4."""
EXACT_MEAN = 1e-12
"""Bound on means recorded as float64; counts must agree exactly."""


def check_generator(golden: Golden, report: Report, sequences: int = SAMPLED) -> None:
    """Check every case of ``generator_sequences`` and ``generator_statistics``.

    Args:
        golden: the directory; absent files are passed over.
        report: receives one or more rows per case, and every file, key or setting not checked.
        sequences: drawn by the vectorised sampler per case.
    """
    for path in sorted(golden.folder.glob("generator_*")):
        if path.name not in {f"{s}.{e}" for s in (SEQUENCES, STATISTICS) for e in ("json", "npz")}:
            report.unchecked(path.name, "no check knows this file")
    _check_file(golden, report, SEQUENCES, _check_sequences)
    statistics = partial(_check_statistics, sequences=sequences)
    _check_file(golden, report, STATISTICS, statistics)


CaseCheck = Callable[[str, Mapping[str, Any], Mapping[str, Any], Arrays, Report], set[str]]


def _check_file(golden: Golden, report: Report, stem: str, check: CaseCheck) -> None:
    """Run ``check`` on each case of one pair of files, then account for all that is left."""
    with report.attempt(stem):
        _check_cases(golden, report, stem, check)


def _check_cases(golden: Golden, report: Report, stem: str, check: CaseCheck) -> None:
    header = golden.json(f"{stem}.json")
    arrays = golden.arrays(f"{stem}.npz")
    cases = header.get("cases", {})
    list_unknown(report, stem, sorted(set(header) - HEADER_KEYS), "entry")
    used: set[str] = set()
    for name, case in cases.items():
        if not isinstance(case, Mapping):
            continue  # a note on a defect: see check_tables
        own = {key for key in arrays if key.startswith(f"{name}/")}
        with report.attempt(f"{stem}/{name}"):
            try:
                own = check(name, case, header, arrays, report)
            except NotUnderstoodError as error:
                report.unchecked(f"{stem}/{name}", str(error))
        used |= own
    with report.attempt(f"{stem}: tables"):
        used |= check_tables(golden, stem, cases, arrays, report)
    list_unknown(report, stem, sorted(set(arrays) - used), "array")


def _check_sequences(
    name: str, case: Mapping[str, Any], header: Mapping[str, Any], arrays: Arrays, report: Report
) -> set[str]:
    recorded = read_call(case, header.get("n"))
    used = _list_settings(name, case, CALL_KEYS | DTYPE_KEYS | CONTROL_KEYS, report)
    images = recorded.exemplars is not None
    ids = ("class_id", "exemplar_id") if images else ("example",)
    generator = recorded.generator()
    records = _draw(recorded, generator)
    for quantity in (*ids, "label", "is_rare"):
        key = f"{name}/{quantity}"
        if key not in arrays:
            report.unchecked(name, f"array {key!r} is missing")
            continue
        used.add(key)
        report.check(name, quantity, _differing(_stack(records, quantity), arrays[key]), 0)
    _check_control(name, case, generator, report)
    if images:
        records = _check_images(name, recorded, records, case, report)
    dtypes = dict(case.get("record_dtypes", {}))
    if "example_dtype" in case:
        dtypes["example"] = case["example_dtype"]
    if dtypes and records:
        found = {key: str(records[0][key].dtype) for key in dtypes if key in records[0]}
        report.equal(name, "dtypes", found == dtypes, "" if found == dtypes else f"{found}")
    return used


def _check_images(
    name: str,
    recorded: Recorded,
    indices: list[Record],
    case: Mapping[str, Any],
    report: Report,
) -> list[Record]:
    """Draw the same case as images and compare with the indices; return the image records."""
    if recorded.noise_scale:
        if DTYPE_KEYS & set(case):
            report.unchecked(name, "dtypes: images with noise do not show which image they are")
        return []
    generator = recorded.generator(recorded.image_source())
    records = _draw(recorded, generator)
    pixels = _stack(records, "example")[:, :, 0, :, 0]  # (n, L, 2)
    for i, quantity in enumerate(("class_id", "exemplar_id")):
        differing = _differing(pixels[:, :, i], _stack(indices, quantity))
        report.check(name, f"{quantity} in image mode", differing, 0)
    _check_control(name, case, generator, report, " in image mode")
    return records


def _check_control(
    name: str, case: Mapping[str, Any], generator: SeqGenerator, report: Report, suffix: str = ""
) -> None:
    """Compare the next draw of either stream, which tells how many were consumed."""
    draws = {
        "np_state_tail": int(generator.np_random.randint(2**31)),
        "py_state_tail": generator.py_random.getrandbits(31),
    }
    for key, value in draws.items():
        if key in case:
            same = value == case[key]
            report.equal(name, key + suffix, same, "" if same else f"{value} != {case[key]}")


def _check_statistics(
    name: str,
    case: Mapping[str, Any],
    header: Mapping[str, Any],
    arrays: Arrays,
    report: Report,
    *,
    sequences: int,
) -> set[str]:
    recorded = read_call(case, header.get("n"))
    expected = {
        key.removeprefix(f"{name}/"): value
        for key, value in arrays.items()
        if key.startswith(f"{name}/")
    }
    expected |= {k: np.asarray(v) for k, v in case.items() if k not in CALL_KEYS}
    exact = _positions(recorded, _draw(recorded, recorded.generator()))
    ours = summarize(exact, recorded.partition.n_classes, recorded.ways)
    if recorded.ways > 2 and BOTH_WAYS in expected and ours[BOTH_WAYS] != expected[BOTH_WAYS]:
        del ours[BOTH_WAYS], expected[BOTH_WAYS]  # "both" may mean two or all of three ways
        report.unchecked(f"{STATISTICS}/{name}", f"{BOTH_WAYS!r} of {recorded.ways} ways")
    known = {key: value for key, value in expected.items() if key in ours}
    for key in sorted(set(expected) - set(known)):
        report.unchecked(f"{STATISTICS}/{name}", f"statistic {key!r} is not understood")
    for key in sorted(known):
        bound = 0.0 if key.endswith(("_hist", "_all", "_query")) else EXACT_MEAN
        report.check(name, key, largest_difference(ours[key], known[key]), bound)
    if known:
        p = p_values(_sampled(recorded, sequences), known, recorded.n, recorded.ways)
        worst = min(p, key=p.__getitem__)
        corrected = max(min(1.0, p[worst] * len(p)), 1e-300)
        report.check(
            name,
            "vectorised sampler, -log10 p",
            abs(math.log10(corrected)),
            LARGEST_LOG_P,
            f"smallest of {len(p)}: {worst}",
        )
    return {key for key in arrays if key.startswith(f"{name}/")}


def _sampled(recorded: Recorded, n: int) -> Sequences:
    """Draw sequences with the vectorised sampler."""
    spec = SequenceSpec(recorded.partition, recorded.plan)  # no statistic involves drawings
    batch = IndexSampler(spec, n, recorded.seed).batch(0)
    classes, label, rare = (
        tensor.numpy() for tensor in (batch.class_index, batch.label, batch.is_rare)
    )
    return Sequences(_inverse(recorded)[classes], label, rare)


def _positions(recorded: Recorded, records: list[Record]) -> Sequences:
    key = "example" if recorded.exemplars is None else "class_id"
    classes = _stack(records, key).astype(np.int64)
    return Sequences(
        _inverse(recorded)[classes], _stack(records, "label"), _stack(records, "is_rare")
    )


def _inverse(recorded: Recorded) -> np.ndarray:
    """Return class id -> position, -1 for classes outside the partition."""
    partition = recorded.partition
    inverse = np.full(partition.n_data_classes, -1, dtype=np.int64)
    inverse[partition.order] = np.arange(partition.n_classes)
    return inverse


def _draw(recorded: Recorded, generator: SeqGenerator) -> list[Record]:
    return [generator.draw(recorded.plan) for _ in range(recorded.n)]


def _stack(records: Iterable[Record], key: str) -> np.ndarray:
    return np.stack([record[key] for record in records])


def _differing(ours: np.ndarray, recorded: np.ndarray) -> float:
    """Return how many values differ; infinite where the shapes do."""
    if ours.shape != recorded.shape:
        return math.inf
    return float(np.count_nonzero(ours != recorded))


def _list_settings(name: str, case: Mapping[str, Any], known: set[str], report: Report) -> set[str]:
    for key in sorted(set(case) - known):
        report.unchecked(f"{SEQUENCES}/{name}", f"setting {key!r} is not understood")
    return set()

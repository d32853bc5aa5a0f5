"""A damaged or foreign recording is noticed, whatever was done to it, and stops no proof.

Every file of a small recording is altered in every systematic way: entries added, removed, renamed,
made NaN, another value, another type or another shape; the file cut, emptied, made unreadable;
files and folders added. Each time the proof must reach its end, and must have failed in something
or listed something as UNCHECKED that it did not with the file as recorded.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepobs.parity
import ptycho_torch.parity
import pytorch_port.parity

SYSTEMS = {
    "icl": partial(pytorch_port.parity.run, sequences=1000),
    "deepobs": deepobs.parity.run,
    "ptycho": ptycho_torch.parity.run,
}
#: system, file to alter, the files that it is checked with, entries kept of a JSON file.
FILES = [
    ("icl", "metrics.json", ("metrics.npz",), ("train_bursty_w0.4", "eval_no_support_rare")),
    ("icl", "metrics.npz", ("metrics.json",), None),
    ("icl", "lr_schedule.npz", (), None),
    ("icl", "positional_encodings.npz", (), None),
    ("icl", "models.json", ("model_vanilla_rnn_2L.npz",), ("model_vanilla_rnn_2L",)),
    ("icl", "model_vanilla_rnn_2L.npz", ("models.json",), ("model_vanilla_rnn_2L",)),
    ("deepobs", "forward.json", ("forward.npz",), ("mnist_logreg",)),
    ("deepobs", "forward.npz", ("forward.json",), ("mnist_logreg",)),
    ("deepobs", "parameter_counts.json", (), ("mnist_logreg",)),
    ("deepobs", "tf_ops.json", ("tf_ops.npz",), None),
    ("deepobs", "tf_ops.npz", ("tf_ops.json",), None),
    ("deepobs", "two_d.json", ("two_d.npz",), None),
    ("deepobs", "two_d.npz", ("two_d.json",), None),
    ("deepobs", "quadratic_deep.json", ("quadratic_deep.npz",), None),
    ("deepobs", "quadratic_deep.npz", ("quadratic_deep.json",), None),
    ("deepobs", "initialiser_stats.json", (), ("trunc_normal_0.05", "get_variable_default_83")),
    ("deepobs", "preprocessing.json", ("preprocessing.npz",), ("tolstoi_test_batches", "two_d")),
    ("deepobs", "preprocessing.npz", (), None),
    ("deepobs", "runner.json", (), ("branin_adam", "quadratic_diverge", "float2str")),
    ("deepobs", "baselines_v1_1.json", (), None),
    ("deepobs", "baseline_curves_v1_1.npz", (), ("quadratic_deep",)),
    ("ptycho", "forward_golden.npz", (), None),
    ("ptycho", "group_merge_golden.npz", (), None),
    ("ptycho", "grouping_golden.npz", (), None),
    ("ptycho", "masks_golden.npz", (), None),
    ("ptycho", "metrics_golden.json", ("metrics_golden.npz",), None),
    ("ptycho", "metrics_golden.npz", ("metrics_golden.json",), None),
    ("ptycho", "params_cfg_snapshots.json", (), ("infer_gs1",)),
    ("ptycho", "stitch_golden.npz", (), None),
    ("ptycho", "tf_network_gs1.npz", (), None),
    ("ptycho", "tf_network_table.json", (), None),
    ("ptycho", "tf_reference.npz", ("forward_golden.npz",), None),
    ("ptycho", "translate_golden.npz", (), None),
]
#: Files whose checker takes half a second or more, or that have many entries: minutes in all.
SLOW = {
    "metrics.npz",
    "models.json",
    "model_vanilla_rnn_2L.npz",
    "parameter_counts.json",
    "quadratic_deep.json",
    "quadratic_deep.npz",
    "runner.json",
    "grouping_golden.npz",
    "stitch_golden.npz",
    "tf_network_gs1.npz",
    "tf_network_table.json",
}
#: Entries whose absence no checker can know of: cases, of which another recording may have fewer.
CASES = {
    "metrics.json": 1,
    "models.json": 2,
    "parameter_counts.json": 1,
    "forward.json": 1,
    "tf_ops.json": 1,
    "two_d.json": 1,
    "initialiser_stats.json": 1,
    "preprocessing.json": 2,
    "runner.json": 1,
    "quadratic_deep.json": 1,
    "baselines_v1_1.json": 0,
    "params_cfg_snapshots.json": 2,
    "tf_network_table.json": 1,
    "metrics_golden.json": 1,
}
#: What cannot be noticed, and why: more or fewer cases, which another recording may well have;
#: inputs and entries that the recording as it is leaves UNCHECKED already; what says nothing new.
BY_DESIGN = {
    # the mode is said by the sequences' type as well; metrics.npz holds the same scalars
    "metrics.json": r"without (mode|scalars)$",
    # Inputs whose altered number no recorded result depends on: the largest of `logits` stands at a
    # label (position 7 of 17), that of `logits_concat` before the query, in cases that count the
    # query alone; the label beyond the head still is; of polysemy with common classes only the
    # reference's own error is recorded.
    "metrics.npz": r"^logits(_concat)? with another|out_of_range with another"
    r"|labels_polysemy_common",
    # Versions are notes, and how far the weights were perturbed is one. A setting left out has its
    # default, which is what was recorded. Recurrent networks ignore dropout, as in the reference,
    # and embedded examples have no superpixels. A count or statistics left out are no fault:
    # another recording may have fewer kinds of results.
    "models.json": r"versions|embedding (without|flatten)|model without|dropout_prob"
    r"|perturb another|without (n_params|w_interim|init_stats|perturb)$",
    # An input: the largest number of the table stands in a row of a class that no example has. A
    # result that is left out is no fault: another recording may have fewer kinds of them.
    "model_vanilla_rnn_2L.npz": r"embeddings with another|without (target|(logits|loss)_\w+)$",
    "positional_encodings.npz": r"^without pe_|renamed",  # each is a case
    # the test problem is the record's name unless it says otherwise
    "forward.json": r"without testproblem",
    # their type is TensorFlow's affair; the last letter of it is altered here
    "parameter_counts.json": r"batch_dtypes last another word",
    "tf_ops.json": r"last without in_hw",  # x_shape says the same
    "two_d.json": r"minima \w+ shorter",
    "initialiser_stats.json": r"shape shorter",  # of a smaller draw
    # those of the 1.2 line are listed; a negative control may be at any distance
    "quadratic_deep.json": r"valid120|^H_(pt120|tf112_second_instance) .*another number"
    r"|^H_(pt120|tf112_second_instance) .*(trace|train_optimum)",
    "quadratic_deep.npz": r"valid120|(hessian_pt120|second_instance_head) (longer|with|scaled)",
    # labels without raw records, images whose raw records are missing; CIFAR-100's one-byte defect
    # loses the last byte, and the last target of a text has no next character
    "preprocessing.npz": r"_test_y|^(with|imagenet|mnist)|cifar100_raw3 with|std_\w+ longer"
    r"|tolstoi_test_first_y with",
    "runner.json": r"^quadratic_diverge .*(losses|stdout)|stdout_head shorter|^float2str without",
    # an argument that is left out has its default, which is what was recorded
    "params_cfg_snapshots.json": r"dataclass (fields|model) without ",
    # which function follows a layer is proven by the networks' outputs, not by this table
    "tf_network_table.json": r"conv_layers last last another word",
    "tf_network_gs1.npz": r"^w\d\d with another value",  # it may lie behind a closed ReLU
    "tf_reference.npz": r"without gaussian_smoothed_exit_wave",
}
Change = Callable[[Any], Any]


def json_changes(value: Any, depth: int, cases: int) -> Iterator[tuple[str, Change]]:
    """Yield name and change of a JSON value; of many like entries, of some."""
    if isinstance(value, dict):
        yield from object_changes(value, depth, cases)
    elif isinstance(value, list) and value:
        if depth >= cases:
            yield "shorter", lambda v: v[:-1]
        for name, change in json_changes(value[-1], depth + 1, cases):
            yield f"last {name}", lambda v, c=change: [*v[:-1], c(v[-1])]
    elif isinstance(value, bool):
        yield "negated", lambda v: not v
    elif isinstance(value, int | float):
        yield "another number", lambda v: v * 1.5 + 1
        yield "NaN", lambda _: math.nan
        yield "a word", lambda _: "word"
    elif isinstance(value, str):
        yield "another word", lambda v: v + "_other"
    if value is None:
        yield "a number", lambda _: 3.5


def object_changes(value: dict[str, Any], depth: int, cases: int) -> Iterator[tuple[str, Change]]:
    """Yield name and change of a JSON object."""
    yield "with an unknown key", lambda v: {**v, "unknown_key": 1.25}
    keys = list(value)
    if len(keys) > 20:
        keys = keys[:: len(keys) // 5]
    for key in keys:
        if depth >= cases:
            yield f"without {key}", lambda v, k=key: {a: b for a, b in v.items() if a != k}
        for name, change in json_changes(value[key], depth + 1, cases):
            yield f"{key} {name}", lambda v, k=key, c=change: {**v, k: c(v[k])}


def array_changes(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, Change]]:
    """Yield name and change of an archive's arrays."""
    yield "with an unknown array", lambda a: {**a, "unknown_array": np.zeros(3)}
    for key, value in arrays.items():
        yield f"without {key}", lambda a, k=key: {n: x for n, x in a.items() if n != k}
        yield f"{key} renamed", lambda a, k=key: {(f"{n}_x" if n == k else n): x for n, x in a.items()}  # fmt: skip # noqa: E501
        if value.ndim:
            longer = np.concatenate([value, value[:1]])
            yield f"{key} longer", lambda a, k=key, x=longer: {**a, k: x}
        yield f"{key} of one more axis", lambda a, k=key, x=value[None]: {**a, k: x}
        if value.dtype.kind in "fc":
            spoilt, moved = value.copy(), value.copy()
            spoilt.flat[-1] = np.nan
            largest = np.abs(moved).argmax()
            moved.flat[largest] = moved.flat[largest] * 1.5 + 1
            yield f"{key} with a NaN", lambda a, k=key, x=spoilt: {**a, k: x}
            yield f"{key} with another value", lambda a, k=key, x=moved: {**a, k: x}
            yield f"{key} scaled", lambda a, k=key, x=value * 1.5 + 1: {**a, k: x}
        elif value.dtype.kind in "iu":
            moved = value.copy()
            moved.flat[-1] += 1
            yield f"{key} with another value", lambda a, k=key, x=moved: {**a, k: x}


def trimmed(path: Path, kept: tuple[str, ...] | None) -> None:
    """Keep only these entries of a file, so that many runs of its checker take seconds."""
    if kept is None:
        return
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        group = next((key for key in ("snapshots", "models") if key in content), None)
        inner = content[group] if group else content
        few = {key: inner[key] for key in kept}
        path.write_text(json.dumps({**content, group: few} if group else few))
    else:
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
        some = {k: a for k, a in arrays.items() if k.partition("__")[0] in kept}
        np.savez(path, **(some or arrays))


def alterations(path: Path) -> Iterator[tuple[str, bytes | Any]]:
    """Yield name and content of every alteration of a file; the file may change meanwhile."""
    whole, content, arrays = path.read_bytes(), None, {}
    if path.suffix == ".json":
        content = json.loads(whole)
    else:
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
    yield "cut in half", whole[: len(whole) // 2]
    yield "emptied", b""
    yield "replaced by a page of the web", b"<!DOCTYPE html><html></html>"
    if path.suffix == ".json":
        for name, change in json_changes(content, 0, CASES.get(path.name, 0)):
            yield name, json.dumps(change(copy.deepcopy(content))).encode()
        yield "replaced by a number", b"3"
    else:
        for name, change in array_changes(arrays):
            yield name, change(arrays)


def marks(report) -> set[tuple[str, str]]:
    """Return what a report complains about."""
    return {(row.case, row.quantity) for row in report.failed} | set(report.skipped)


@pytest.mark.parametrize(
    ("system", "name", "others", "kept"),
    [
        pytest.param(
            *row, marks=[pytest.mark.slow] if row[1] in SLOW else [], id=f"{row[0]}/{row[1]}"
        )
        for row in FILES
    ],
)
def test_every_alteration_is_noticed(repo_root, tmp_path, system, name, others, kept):
    golden = repo_root / "tests" / "parity" / "golden" / system
    scan = ("synthetic_scan.npz",) if system == "ptycho" else ()
    for other in ("meta.json", name, *others, *scan):
        shutil.copy(golden / other, tmp_path / other)
        if other in (name, *others) and not other.startswith("preprocessing.npz"):
            trimmed(tmp_path / other, kept)
    check, path = SYSTEMS[system], tmp_path / name
    before = check(tmp_path)
    assert before.rows
    assert not before.failed, before.table()
    silent = []
    for alteration, content in alterations(path):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        if not marks(check(tmp_path)) - marks(before):
            silent.append(alteration)
    design = BY_DESIGN.get(name, "^$")
    assert [text for text in silent if not re.search(design, text)] == []

"""The generators against recorded sequences and statistics of the reference.

Recorded arrays: ``golden/icl/generator_*``, made by the public reference (revision eba75a4).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pytorch_port.parity.generator import SAMPLED, _positions, _sampled, check_generator
from pytorch_port.parity.generator_settings import read_call
from pytorch_port.parity.golden import Golden
from pytorch_port.parity.sequence_statistics import p_values, summarize
from trainrig.parity import Report

GOLDEN = Path(__file__).parent / "golden" / "icl"
META = {"system": "icl", "reference_bugs": ["zipfcr/zipf_weights_after_rare"]}
STATISTICS = json.loads((GOLDEN / "generator_statistics.json").read_text())["cases"]


@pytest.fixture
def sequences_dir(tmp_path):
    """A directory with the recorded sequences alone."""
    for name in ("generator_sequences.json", "generator_sequences.npz"):
        shutil.copy(GOLDEN / name, tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    return tmp_path


@pytest.fixture
def edit(sequences_dir):
    """Return a function that changes the recorded settings and arrays, then checks them."""

    def change(settings=lambda cases: None, arrays=lambda values: None) -> Report:
        path = sequences_dir / "generator_sequences.json"
        header = json.loads(path.read_text())
        settings(header["cases"])
        path.write_text(json.dumps(header))
        with np.load(path.with_suffix(".npz")) as archive:
            values = {key: archive[key] for key in archive.files}
        arrays(values)
        np.savez(path.with_suffix(".npz"), **values)
        report = Report()
        check_generator(Golden(sequences_dir), report)
        return report

    return change


def test_every_recorded_sequence_is_reproduced_bit_for_bit(sequences_dir):
    report = Report()
    check_generator(Golden(sequences_dir), report)
    assert not report.failed
    assert not report.skipped
    cases = json.loads((GOLDEN / "generator_sequences.json").read_text())["cases"]
    with_rows = {row.case for row in report.rows}
    assert {name for name in cases if name != "zipfcr_inplace_bug"} <= with_rows
    controls = [row for row in report.rows if row.quantity.endswith("state_tail")]
    assert len(controls) >= 2 * (len(cases) - 1)


def test_a_single_wrong_label_fails(edit):
    def spoil(values):
        values["mixed/label"][7, 3] += 1

    assert [(r.case, r.quantity) for r in edit(arrays=spoil).failed] == [("mixed", "label")]


def test_one_draw_too_many_fails(edit):
    def spoil(cases):
        cases["bursty_default"]["np_state_tail"] += 1
        cases["bursty_default"]["py_state_tail"] += 1

    failed = {row.quantity for row in edit(settings=spoil).failed}
    assert failed == {"np_state_tail", "py_state_tail"}


def test_a_wrong_dtype_or_shape_fails(edit):
    def dtype(cases):
        cases["mixed"]["record_dtypes"]["example"] = "float16"

    def shape(values):
        values["mixed/example"] = values["mixed/example"][:5]

    failed = {row.quantity for row in edit(dtype, shape).failed}
    assert failed == {"example", "dtypes"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("generator", "novelty"), 1),
        (("args", "novelty"), 1),
        (("method",), "get_novel_seq"),
        (("generator", "dataset_size"), None),
        (("novelty",), 1),
    ],
)
def test_unknown_settings_are_unchecked_not_passed(edit, path, value):
    def change(cases):
        target = cases["mixed"]
        for key in path[:-1]:
            target = target[key]
        if value is None:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    report = edit(settings=change)
    assert not report.failed
    assert any("mixed" in case for case, _ in report.skipped)


def test_contradictory_settings_fail(edit):
    def change(cases):
        cases["mixed"]["generator"]["n_rare_classes"] = 1000

    report = edit(settings=change)
    assert any("mixed" in row.case and "1000" in row.detail for row in report.failed)


def test_left_over_arrays_and_files_are_unchecked(edit, sequences_dir):
    np.savez(sequences_dir / "generator_novel.npz", x=np.zeros(1))

    def add(values):
        values["novel/thing"] = np.zeros(3)
        del values["bursty_p0/label"]

    report = edit(arrays=add)
    assert not report.failed
    text = str(report.skipped)
    assert all(part in text for part in ("novel/thing", "bursty_p0/label", "generator_novel.npz"))


def test_wrong_partition_and_ordering_fail(edit):
    def spoil(values):
        values["partition/small100/holdout"][:2] = values["partition/small100/holdout"][1::-1]
        values["ordering/default_rng1337/100"][0] += 1
        values["preserve8/class_ordering"][0] += 1
        values["partition/full1623/zipf_weights"][3] *= 1.001

    failed = {row.case for row in edit(arrays=spoil).failed}
    assert failed == {
        "partition/small100",
        "ordering/default_rng1337/100",
        "preserve8/class_ordering",
        "partition/full1623",
    }


def recorded_statistics(name):
    """Return the call and the recorded statistics of a case."""
    case = STATISTICS[name]
    with np.load(GOLDEN / "generator_statistics.npz") as archive:
        expected = {
            key.split("/")[1]: archive[key] for key in archive.files if key.startswith(f"{name}/")
        }
    for key in ("frac_query_in_support", "mean_query_support"):
        expected[key] = np.asarray(case[key])
    return read_call(case), expected


@pytest.mark.parametrize("name", STATISTICS)
def test_vectorised_sampler_is_statistically_equal(name):
    """50,000 sequences against the recorded 20,000; no quantity may reject at p < 1e-4."""
    call, expected = recorded_statistics(name)
    sequences = _sampled(call, SAMPLED)
    assert len(sequences) == SAMPLED
    p = p_values(sequences, expected, call.n, call.ways)
    assert set(p) == set(expected)
    assert min(p.values()) >= 1e-4, p


def test_same_class_both_ways_limits_fewshot_holdout():
    """Two ways from 10 classes with replacement: 1 sequence in 10, hence a ceiling of 0.95."""
    call, expected = recorded_statistics("fewshot_holdout")
    ours = summarize(_sampled(call, SAMPLED), call.partition.n_classes, call.ways)
    fraction = float(ours["frac_same_class_both_ways"])
    assert fraction == pytest.approx(0.1, abs=4 * (0.09 / SAMPLED) ** 0.5)
    assert float(expected["frac_same_class_both_ways"]) == pytest.approx(0.1012)


@pytest.mark.parametrize("name", ["bursty_polysemy5_100classes", "no_support_common"])
def test_exact_generator_reproduces_recorded_statistics(name):
    call, expected = recorded_statistics(name)
    generator = call.generator()
    records = [generator.draw(call.plan) for _ in range(call.n)]
    ours = summarize(_positions(call, records), call.partition.n_classes, call.ways)
    for key, value in expected.items():
        np.testing.assert_allclose(np.atleast_1d(ours[key]), np.atleast_1d(value), atol=1e-12)


def test_p_values_reject_a_wrong_sampler():
    """The tests have teeth: 0.9 against 0.87 bursty sequences is noticed."""
    call, expected = recorded_statistics("bursty_p0.9_zipf0")
    case = json.loads(json.dumps(STATISTICS["bursty_p0.9_zipf0"]))
    case["args"]["p_bursty"] = 0.87
    p = p_values(_sampled(read_call(case), SAMPLED), expected, call.n, call.ways)
    assert min(p.values()) < 1e-10
    case["args"]["p_bursty"] = 0.9
    case["generator"]["zipf_exponent"] = 0.1
    p = p_values(_sampled(read_call(case), SAMPLED), expected, call.n, call.ways)
    assert min(p.values()) < 1e-6


def test_sequences_too_few_to_hold_the_rare_ones_are_not_rejected():
    """Twelve of 20,000 few-shot sequences have eight copies instead of four; 300 may have none."""
    call, expected = recorded_statistics("fewshot_zipfian")
    p = p_values(_sampled(call, 300), expected, call.n, call.ways)
    assert p["mean_query_support"] > 0.1
    expected["mean_query_support"] = np.array(4.2)
    p = p_values(_sampled(call, 300), expected, call.n, call.ways)
    assert p["mean_query_support"] < 1e-10

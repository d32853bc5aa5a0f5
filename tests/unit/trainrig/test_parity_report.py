"""The parity table: NaN never passes, nothing checked is a failure, nothing read is dropped."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from trainrig.parity import Record, Recording, Report


def test_an_empty_report_fails_and_says_so():
    report = Report()
    report.unchecked("odd.npz", "unknown kind")
    assert report.exit_code == 1
    lines = report.table().splitlines()
    assert "nothing was checked: that is a failure" in lines
    assert "UNCHECKED  odd.npz: unknown kind" in lines
    assert lines[-1] == "0 passed, 0 failed, 1 unchecked"


@pytest.mark.parametrize(
    ("deviation", "bound", "ok"),
    [
        (0.0, 0.0, True),
        (1e-5, 1e-5, True),
        (1.1e-5, 1e-5, False),
        (math.nan, 1.0, False),
        (math.nan, math.inf, False),
        (math.inf, 1.0, False),
    ],
)
def test_bounds(deviation, bound, ok):
    report = Report()
    report.check("case", "logits", deviation, bound)
    assert report.exit_code == (0 if ok else 1)
    assert len(report.failed) == (0 if ok else 1)
    assert report.summary() == f"{int(ok)} passed, {int(not ok)} failed, 0 unchecked"


def test_one_failure_fails_all_and_is_marked():
    report = Report()
    report.equal("a", "labels", True)
    report.equal("b", "labels", False, "first difference at 3")
    assert report.exit_code == 1
    lines = report.table().splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["case", "quantity"],
        ["a", "labels"],
        ["b", "labels"],
    ]
    assert "FAIL" in lines[2]
    assert "first difference at 3" in lines[2]
    assert "FAIL" not in lines[1]
    assert lines[-1] == "1 passed, 1 failed, 0 unchecked"


def test_without_a_bound_a_quantity_is_unchecked():
    report = Report()
    report.check("case", "logits", 0.25, None)
    assert not report.rows
    assert report.skipped == [("case", "logits: no bound is recorded (deviation 0.25)")]


def test_an_error_becomes_a_row_and_the_next_case_is_judged():
    report = Report()
    with report.attempt("damaged"):
        raise RuntimeError("shapes (2,)\nand (3,)")
    with report.attempt("poor"):
        Record({"a": 1}, "forward")["b"]
    with report.attempt("good"):
        report.equal("good", "labels", True)
    assert [(row.case, row.ok, row.detail) for row in report.rows] == [
        ("damaged", False, "RuntimeError: shapes (2,) and (3,)"),
        ("good", True, ""),
    ]
    assert report.skipped == [("poor", "forward has no entry 'b'")]
    with pytest.raises(KeyboardInterrupt), report.attempt("stopped"):
        raise KeyboardInterrupt


def test_a_record_names_what_nobody_read():
    values = {"a": {"b": 1, "c": [{"d": 2, "e": 3}, {"d": 4}]}, "f": [1, 2], "g": {}, "h": None}
    record = Record(values, "x")
    assert record.unread() == ["x/a", "x/f", "x/g", "x/h"]
    assert "h" in record
    assert list(record) == ["a", "f", "g", "h"]
    assert record["a"]["c"][0]["d"] == 2
    assert record["f"] == [1, 2]
    assert record.get("i") is None
    assert record.unread() == ["x/a/b", "x/a/c[0]/e", "x/a/c[1]/d", "x/g", "x/h"]
    assert record == values
    assert record.unread() == []
    assert Record(values, "x").plain() == values


def recording(folder, **files) -> Recording:
    for name, content in {"meta": {}, **files}.items():
        path = folder / f"{name}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Recording(folder, "icl")


def test_a_recording_lists_unread_files_and_entries(tmp_path):
    np.savez(tmp_path / "pass.npz", logits=np.zeros(2), extra=np.zeros(1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "README.md").write_text("for people")
    meta = {"bounds": {"logits": 1e-3, "odd": 1, "trace": {"loss": 2}}, "system": "icl"}
    golden = recording(tmp_path, meta=meta, models={"a": {"b": 1}}, foreign=[1])
    assert "models.json" in golden
    assert golden.bound("logits") == 1e-3
    assert golden.bound("trace", "loss") == 2.0
    assert golden.bound("trace", "grad") is None
    assert golden.bound("nothing", "at", "all") is None
    assert golden.arrays("pass.npz")["logits"].shape == (2,)
    assert golden.arrays("absent.npz") == {}
    assert golden.json("models.json")["a"]["b"] == 1
    report = Report()
    golden.report_rest(report)
    assert [case for case, _ in report.skipped] == [
        "folder",
        "foreign.json",
        "meta.json/bounds/odd",
        "pass.npz/extra",
    ]


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "holds a list; a JSON object is expected"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ('{"system": "ptycho"}', "is of system 'ptycho'; 'icl' is expected"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(tmp_path, meta, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        recording(tmp_path, meta=meta)


@pytest.mark.parametrize("spoil", ["cut", "text", "empty", "byte", "object"])
def test_a_damaged_archive_is_named(tmp_path, spoil):
    path = tmp_path / "pass.npz"
    np.savez_compressed(path, a=np.arange(1000.0), b=np.arange(3))
    whole = path.read_bytes()
    if spoil == "object":
        np.savez(path, a=np.array([{}], dtype=object))
    else:
        half = len(whole) // 2
        path.write_bytes(
            {
                "cut": whole[:half],
                "text": b"<html>",
                "empty": b"",
                "byte": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
            }[spoil]
        )
    with pytest.raises(ValueError, match=r"pass\.npz: not readable as an archive"):
        recording(tmp_path).arrays("pass.npz")


def test_a_folder_without_settings_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        Recording(tmp_path / "absent", "icl")
    with pytest.raises(FileNotFoundError, match=r"meta\.json: missing"):
        Recording(tmp_path, "icl")

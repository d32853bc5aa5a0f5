"""The parity table: NaN never passes, and nothing checked is a failure."""

from __future__ import annotations

import math

import pytest

from trainrig.parity import Report


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

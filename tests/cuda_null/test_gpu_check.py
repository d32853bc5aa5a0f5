"""The check of a GPU goes through on a device that computes nothing; values are ignored."""

from __future__ import annotations

import json

import pytest
from null_gpu import run


def results(tmp_path, *parts):
    argv = ["scripts/gpu_check.py", "--output", str(tmp_path), "--patience", "10", "--parts"]
    result = run([*argv, *parts], limit_s=1500)
    found = {part["name"]: part for part in json.loads((tmp_path / "results.json").read_text())}
    assert set(found) == set(parts), result.said()
    assert not result.tally.refusals
    page = (tmp_path / "report.md").read_text("utf-8")
    assert all(f"## {name}" in page for name in parts)
    return result, found


@pytest.mark.slow
def test_a_part_that_ends_well_is_on_the_page(tmp_path):
    result, found = results(tmp_path, "facts")
    assert result.status == 0, result.said()
    assert found["facts"]["found"]["card"] == "null GPU"


@pytest.mark.slow
def test_parts_that_look_at_no_value_end_well(tmp_path):
    result, found = results(tmp_path, "engines", "determinism", "problems", "patterns")
    assert result.status == 0, result.said()
    assert len(found["engines"]["found"]) == 12
    assert [row["system"] for row in found["determinism"]["found"]] == [
        "icl",
        "cifar",
        "deepobs",
        "ptycho",
    ]
    assert len(found["problems"]["found"]) >= 26

"""Tests on a CUDA device that computes nothing, see ``null_gpu``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import null_gpu
import pytest

HERE = Path(__file__).resolve().parent
TABLE = HERE / "counts.json"
#: A step may launch, wait and copy so much more than the table says.
MORE = 1.03


def pytest_collection_modifyitems(items):
    """Skip what needs the null GPU where there is none."""
    reason = null_gpu.reason_against()
    for item in items:
        if reason is not None and HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"no null GPU: {reason}"))


@pytest.fixture
def within_table(request):
    """Return a function: name, what a step did -> asserts that it is no more than recorded.

    ``TRAINRIG_RECORD_COUNTS=1`` records instead, for a change that is meant.
    """

    def check(name: str, step: dict[str, float]) -> None:
        table = json.loads(TABLE.read_text("utf-8"))
        if os.environ.get("TRAINRIG_RECORD_COUNTS") == "1":
            table[name] = step
            TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", "utf-8")
        recorded = table[name]
        assert set(step) == set(recorded)
        more = {key: (step[key], n) for key, n in recorded.items() if step[key] > MORE * n}
        assert not more, f"{name}: {more}: now and in the table"

    return check

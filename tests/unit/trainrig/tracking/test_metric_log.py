"""The two logs: whole rows, exact truncation, nothing that depends on the clock in the record."""

from __future__ import annotations

import errno
import math
import os

import pytest

from trainrig.tracking.metric_log import TIMING_KEYS, MetricLog
from trainrig.tracking.progress import read_progress

COLUMNS = ("step", "split", "loss", "elapsed", "steps_per_second")


def row(step, loss=0.5, **more):
    return {"step": step, "split": "train", "loss": loss, "elapsed": step * 1.5, **more}


@pytest.fixture
def log(tmp_path):
    log = MetricLog(tmp_path / "logs", COLUMNS)
    yield log
    log.close()


def test_rows_are_readable_at_once_and_timing_stays_out_of_the_record(log):
    log.append(row(1, extra=0.1, steps_per_second=9.0))
    assert log.rows() == [{"step": 1, "split": "train", "loss": 0.5, "extra": 0.1}]
    shown = read_progress(log.paths["progress.txt"])
    assert shown == [
        {"step": 1, "split": "train", "loss": 0.5, "elapsed": 1.5, "steps_per_second": 9.0}
    ]
    assert not set(TIMING_KEYS) & set(log.rows()[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_null_in_json_and_itself_in_text(log, value):
    log.append(row(1, loss=value))
    assert log.rows()[0]["loss"] is None
    assert repr(read_progress(log.paths["progress.txt"])[0]["loss"]) == repr(value)


def test_cutting_back_and_repeating_gives_the_same_bytes(log):
    log.append(row(1))
    sizes = log.sync()
    log.append(row(2))
    whole = {name: path.read_bytes() for name, path in log.paths.items()}
    log.paths["metrics.jsonl"].open("ab").write(b'{"step": 3, "spl')  # died in mid-line
    log.truncate(sizes)
    assert [r["step"] for r in log.rows()] == [1]
    log.append(row(2))
    assert {name: path.read_bytes() for name, path in log.paths.items()} == whole


def test_a_second_log_on_the_same_files_appends(log, tmp_path):
    log.append(row(1))
    log.close()
    again = MetricLog(tmp_path / "logs", COLUMNS)
    again.append(row(2))
    assert [r["step"] for r in again.rows()] == [1, 2]
    again.truncate({})
    assert again.rows() == []
    again.close()


def test_missing_rows_are_refused_before_anything_is_cut(log):
    log.append(row(1))
    sizes = log.sync()
    os.truncate(log.paths["metrics.jsonl"], 3)
    log.append(row(2))
    with pytest.raises(ValueError, match=r"metrics\.jsonl: .* saved after"):
        log.truncate({**sizes, "metrics.jsonl": 10_000, "progress.txt": 1})
    assert log.paths["progress.txt"].stat().st_size > 1


def test_a_row_that_cannot_be_written_leaves_no_half_row(log):
    log.append(row(1))
    with pytest.raises((ValueError, TypeError)):
        log.append({"step": 2, "split": "train", "odd": object()})
    with pytest.raises(ValueError, match="space"):
        log.append({"step": 2, "split": "two words"})
    assert len(log.rows()) == len(read_progress(log.paths["progress.txt"])) == 1


def test_full_disk_names_the_file_and_closes_quietly(tmp_path):
    log = MetricLog(tmp_path, COLUMNS)
    log._files["metrics.jsonl"].close()
    log._files["metrics.jsonl"] = open("/dev/full", "ab")  # noqa: SIM115 - closed by the log
    with pytest.raises(OSError, match="No space") as caught:
        log.append(row(1))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith("metrics.jsonl")
    log.close()

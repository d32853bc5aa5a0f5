"""Live curves: one interface, TensorBoard's events read back, and nothing that can stop a run."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

from trainrig.tracking import tracker as module
from trainrig.tracking.tracker import Tracker, check_tracker, scalars_of

ROWS = [
    {"step": 1, "split": "train", "loss": 2.0, "elapsed": 0.5},
    {"step": 2, "split": "train", "loss": 1.0, "note": "words"},
]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of all event files below a folder, by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_shows_rows_and_after_a_resume_only_those_that_count(tmp_path):
    def track(rows):
        tracker = Tracker("p", "run", {"lr": 1}, folder=tmp_path, rows=rows, kind="tensorboard")
        tracker.log({"step": 3, "split": "train", "loss": 0.5})
        tracker.finish()
        return events(tmp_path / "tensorboard/run")

    assert track(ROWS) == {"train/loss": [(1, 2.0), (2, 1.0), (3, 0.5)]}
    assert track(ROWS[:1]) == {"train/loss": [(1, 2.0), (3, 0.5)]}


def test_none_writes_nothing(tmp_path):
    tracker = Tracker("p", "run", {}, folder=tmp_path, rows=ROWS, kind="none")
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


def test_only_numbers_are_shown_and_no_timing():
    assert scalars_of(ROWS[0]) == {"train/loss": 2.0}
    assert scalars_of(ROWS[1]) == {"train/loss": 1.0}
    assert scalars_of({"step": 4, "loss": None}) == {}


def test_a_failing_sink_is_reported_once_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, *_):
            pass

        def log(self, *_):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainrig.tracking.tensorboard_sink.TensorBoardSink", Broken)
    with caplog.at_level(logging.WARNING):
        tracker = Tracker("p", "run", {}, folder=tmp_path, rows=ROWS, kind="tensorboard")
        tracker.log(ROWS[0])
        tracker.finish()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="'tensorbord'; did you mean 'tensorboard'"):
        check_tracker("tensorbord")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install"):
        check_tracker("tensorboard")
    assert importlib.util.find_spec("trackio") is None
    check_tracker("trackio")  # on by default, so its absence is no error

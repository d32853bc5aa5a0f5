"""Bounds of the quick regression against a progress file."""

from __future__ import annotations

from pytorch_port.parity.regression import check_progress

BOUND = {"class_count": 100, "step": 2, "split": "train", "metric": "loss", "low": 0.5, "high": 2.0}


def checked(tmp_path, text):
    (tmp_path / "progress.txt").write_text(text)
    (check,) = check_progress(tmp_path / "progress.txt", 100, [BOUND])
    return check


def test_a_value_is_held_against_its_bounds(tmp_path):
    assert checked(tmp_path, "step=2 split=train loss=1.5\n").ok
    assert not checked(tmp_path, "step=2 split=train loss=2.5\n").ok
    assert not checked(tmp_path, "step=2 split=train loss=nan\n").ok


def test_what_is_no_number_counts_as_missing(tmp_path):
    for text in ("step=2 split=train loss=high\n", "step=1 split=train loss=1.5\n"):
        check = checked(tmp_path, text)
        assert (check.value, check.ok) == (None, False)
        assert "missing" in str(check)


def test_bounds_of_other_class_counts_are_left_out(tmp_path):
    (tmp_path / "progress.txt").write_text("step=2 split=train loss=1.5\n")
    assert check_progress(tmp_path / "progress.txt", 1600, [BOUND]) == []

"""progress.txt: what is written is read back bit for bit, and damage is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainrig.tracking.progress import format_line, parse_line, read_progress


def test_a_line_looks_as_documented():
    row = {"step": 100, "split": "train", "loss": 7.391, "lr": 7.5e-06, "elapsed": 2.0}
    assert format_line(row) == "step=100 split=train loss=7.391 lr=7.5e-06 elapsed=2.0"


def test_numpy_scalars_are_written_as_plain_numbers():
    assert format_line({"step": np.int64(3), "loss": np.float64(0.1)}) == "step=3 loss=0.1"
    assert parse_line(format_line({"loss": np.float32(0.1)}))["loss"] == float(np.float32(0.1))


@given(
    st.dictionaries(
        st.from_regex(r"\A[a-z_][a-z0-9_/.-]{0,12}\Z"),
        st.one_of(
            st.integers(),
            st.floats(allow_nan=False),
            st.sampled_from(["train", "holdout", "no_support", "a=b", "1e", "x1", "e5", "--"]),
        ),
        min_size=1,
    )
)
def test_round_trip_keeps_values_types_and_order(row):
    back = parse_line(format_line(row))
    assert list(back.items()) == list(row.items())
    assert [type(value) for value in back.values()] == [type(value) for value in row.values()]


def test_not_a_number_round_trips():
    assert math.isnan(parse_line(format_line({"loss": math.nan}))["loss"])


@pytest.mark.parametrize("value", [None, True, "", "two words", "a\tb", "12", "1e5", "nan", [1]])
def test_values_that_would_not_round_trip_are_refused(value):
    with pytest.raises(ValueError, match="split is"):
        format_line({"split": value})


@pytest.mark.parametrize("key", ["", "a b", "a=b", "1st"])
def test_bad_keys_are_refused(key):
    with pytest.raises(ValueError, match="bad key"):
        format_line({key: 1})


@pytest.mark.parametrize("line", ["", "step", "step=", "=3", "step=1 loss 2", "step=1 step=2"])
def test_malformed_lines_are_refused(line):
    with pytest.raises(ValueError, match="progress line"):
        parse_line(line)


def test_file_is_read_in_order_and_damage_named_by_line(tmp_path):
    path = tmp_path / "progress.txt"
    path.write_text("step=1 loss=2.5\nstep=2 loss=nan\n")
    assert [row["step"] for row in read_progress(path)] == [1, 2]
    path.write_text("step=1 loss=2.5\nstep=2 lo\n")
    with pytest.raises(ValueError, match=r"progress\.txt:2: .*'lo' is not key=value"):
        read_progress(path)


def test_line_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "progress.txt"
    path.write_text("step=1 loss=2.5\nstep=2 loss=2.")
    assert read_progress(path) == [{"step": 1, "loss": 2.5}]


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"progress\.txt: no such progress file"):
        read_progress(tmp_path / "progress.txt")
    (tmp_path / "progress.txt").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(ValueError, match="not a text file"):
        read_progress(tmp_path / "progress.txt")

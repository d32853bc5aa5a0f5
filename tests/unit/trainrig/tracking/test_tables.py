"""CSV tables: exact round trip, atomic replacement, and faults named by file, line and column."""

from __future__ import annotations

import pytest

from trainrig.tracking.tables import Column, read_table, table_text, write_table

REQUIRED = {"class_count": Column(int), "accuracy": Column(float, may_be_empty=True)}
OPTIONAL = {"backend": Column(str)}


def test_round_trip_keeps_bits_and_absent_values(tmp_path):
    rows = [
        {"class_count": 100, "accuracy": 0.1 + 0.2, "backend": "torch", "note": "a, b"},
        {"class_count": 1600, "accuracy": None, "backend": "jax", "note": None},
    ]
    path = tmp_path / "deep" / "table.csv"
    write_table(rows, path, ["class_count", "accuracy", "backend", "note"])
    assert read_table(path, REQUIRED, OPTIONAL) == rows
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_unknown_columns_are_kept_with_a_guessed_type(tmp_path):
    (tmp_path / "t.csv").write_text("class_count,accuracy,x,y,z\n100,0.5,3,2.5,word\n")
    (row,) = read_table(tmp_path / "t.csv", REQUIRED)
    assert (row["x"], row["y"], row["z"]) == (3, 2.5, "word")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv: empty; a header with class_count, accuracy is expected"),
        (
            "class_cout,accuracy\n",
            r"t\.csv: column 'class_count' is missing; did you mean 'class_cout'",
        ),
        ("class_count,accuracy,accuracy\n", r"column 'accuracy' occurs twice"),
        ("class_count,accuracy\n1,0.5\n2\n", r"t\.csv:3: 1 cells; the header has 2 columns"),
        (
            "class_count,accuracy\n1,0.5\n2,high\n",
            r"t\.csv:3: column 'accuracy' is 'high'; a number",
        ),
        (
            "class_count,accuracy\n1.5,0.5\n",
            r"t\.csv:2: column 'class_count' is '1\.5'; an integer",
        ),
        ("class_count,accuracy\n,0.5\n", r"t\.csv:2: column 'class_count' is empty; an integer"),
        ('class_count,accuracy\n"1,0.5\n', r"t\.csv:\d: not valid CSV"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t.csv", REQUIRED)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"t\.csv: no such table"):
        read_table(tmp_path / "t.csv", REQUIRED)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "row 1: lacks column 'b'"),
        ({"a": 1, "b": 2, "c": 3}, "row 1: has the undeclared column 'c'"),
        ({"a": 1, "b": True}, "row 1: column 'b' is True"),
        ({"a": 1, "b": [2]}, r"row 1: column 'b' is \[2\]"),
    ],
)
def test_bad_rows_are_refused_before_anything_is_written(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        write_table([row], tmp_path / "t.csv", ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_text_ends_every_row_with_one_newline():
    assert table_text([{"a": 1, "b": 2.0}], ["a", "b"]) == "a,b\n1,2.0\n"

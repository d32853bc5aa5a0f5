"""CSV tables with typed columns: written atomically, read with every fault named by its place.

A schema is a mapping from column name to ``Column``. Floats are written in Python's shortest exact
form and read back to the same bits; an absent value is an empty cell, and ``None`` in Python.
"""

from __future__ import annotations

import csv
import io
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.errors import nearest
from trainrig.files import write_atomically

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        kind: ``int``, ``float`` or ``str``.
        may_be_empty: whether a cell may be empty (read as ``None``).
    """

    kind: type
    may_be_empty: bool = False


Schema = Mapping[str, Column]


def table_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return ``rows`` as CSV text with the given columns.

    Raises:
        ValueError: a row lacks a column, has another one, or holds something that is neither a
            number, a string nor ``None``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    known = set(columns)
    for number, row in enumerate(rows, start=1):
        for wrong in (*known.difference(row), *set(row).difference(known)):
            what = "lacks" if wrong in known else "has the undeclared"
            raise ValueError(
                f"table row {number}: {what} column {wrong!r}; columns are {', '.join(columns)}"
            )
        writer.writerow([_cell(row[name], name, number) for name in columns])
    return buffer.getvalue()


def write_table(
    rows: Iterable[Mapping[str, Any]], path: Path | str, columns: Sequence[str]
) -> None:
    """Replace ``path`` by a CSV of ``rows`` in one step; see ``table_text`` for errors."""
    write_atomically(Path(path), table_text(rows, columns))


def read_table(path: Path | str, required: Schema, optional: Schema | None = None) -> list[Row]:
    """Read a CSV whose header holds at least the ``required`` columns.

    Columns in neither schema are kept, as an integer, a float or text, whichever fits first; empty
    cells there are ``None``. Optional columns that the file lacks are absent from the rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no header, a missing or doubled column, a row of the wrong length, or a cell
            that is not what its column holds; file, line and column are named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such table; a CSV file is expected") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; a CSV file is expected") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header, required)
        schema = {**(optional or {}), **required}
        return [
            _read_row(f"{path}:{reader.line_num}", header, cells, schema)
            for cells in reader
            if cells
        ]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


def _check_header(path: Path, header: Sequence[str], required: Schema) -> None:
    if not header:
        raise ValueError(f"{path}: empty; a header with {', '.join(required)} is expected")
    for name in required:
        if name not in header:
            hint = nearest(name, header) or f"; it has {', '.join(header)}"
            raise ValueError(f"{path}: column {name!r} is missing{hint}")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise ValueError(f"{path}: column {doubled[0]!r} occurs twice; once is expected")


def _read_row(where: str, header: Sequence[str], cells: Sequence[str], schema: Schema) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"{where}: {len(cells)} cells; the header has {len(header)} columns")
    return {
        name: _parse(f"{where}: column {name!r}", cell.strip(), schema.get(name))
        for name, cell in zip(header, cells, strict=True)
    }


def _parse(where: str, cell: str, column: Column | None) -> int | float | str | None:
    if column is None:
        return _guess(cell)
    if not cell:
        if column.may_be_empty:
            return None
        raise ValueError(f"{where} is empty; {_NAMES[column.kind]} is expected")
    try:
        return column.kind(cell)
    except ValueError:
        raise ValueError(f"{where} is {cell!r}; {_NAMES[column.kind]} is expected") from None


_NAMES = {int: "an integer", float: "a number", str: "a word"}


def _guess(cell: str) -> int | float | str | None:
    if not cell:
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _cell(value: Any, name: str, number: int) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))
    raise ValueError(
        f"table row {number}: column {name!r} is {value!r}; a number, a string or None is expected"
    )

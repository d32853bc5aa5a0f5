"""Tables on standard output: coloured on a terminal with rich, else plain columns."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

#: Words that rich shows in a colour, wherever they fill a cell.
COLOURS = {"ok": "green", "found": "green", "note": "yellow", "missing": "yellow", "bad": "red"}


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their headings, on a terminal with the widest columns broken into lines."""
    if not sys.stdout.isatty() or importlib.util.find_spec("rich") is None:
        for line in plain_table(headings, rows):
            print(line)  # noqa: T201 - the table itself
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")  # the widest give way first
    for row in rows:
        table.add_row(*(_coloured(escape(cell), COLOURS.get(cell)) for cell in row))
    Console(highlight=False).print(table)


def print_config(rows: Sequence[Sequence[str]], note: str = "") -> int:
    """Print the rows of ``trainrig.config.Traced`` and a note; return the exit status, 0."""
    print_table(("key", "value", "from"), rows)
    if note:
        print(f"\n{note}")  # noqa: T201 - the answer itself
    return 0


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as padded columns.

    >>> plain_table(("a", "b"), [("long", "x")])
    ['a     b', 'long  x']
    """
    every = [headings, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]


def _coloured(cell: str, colour: str | None) -> str:
    return f"[{colour}]{cell}[/]" if colour else cell

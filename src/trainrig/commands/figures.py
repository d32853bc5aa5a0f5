"""Draw every archived figure again from the tables beside it; nothing is trained.

Each figure is written as PNG and PDF into the folder of its table.

Examples:
    python scripts/make_figures.py
    python scripts/make_figures.py runs/torch_adamw_sweep/archive
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    text = "folders of tables; what lies below them is drawn as well (runs/*/archive)"
    parser.add_argument("folders", nargs="*", type=Path, help=text)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Draw, and name what was drawn and which pictures have no table."""
    folders = make_parser().parse_args(argv).folders or sorted(Path("runs").glob("*/archive"))
    from trainrig.report.describers import redraw

    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; give one that holds tables")
        for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
            drawn = [path for path in redraw(place) if path.suffix == ".png"]
            for path in drawn:
                print(path)
            for path in sorted(set(place.glob("*.png")) - set(drawn)):
                print(f"{path}: has no table here; left as it is")
    return 0

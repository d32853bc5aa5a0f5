"""The ``trainrig`` command: what is no task of its own, such as comparing configurations."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry
from trainrig.config import diff
from trainrig.files import read_json


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(prog="trainrig", description=__doc__)
    topics = parser.add_subparsers(dest="topic", required=True, parser_class=Parser)
    config = topics.add_parser("config", help="configurations of runs")
    actions = config.add_subparsers(dest="action", required=True, parser_class=Parser)
    text = "list the keys that differ between two runs; exit status 0 either way"
    between = actions.add_parser("diff", help=text, description=text)
    between.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="run directory")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    arguments = make_parser().parse_args(argv)
    for line in config_diff(*arguments.runs):
        print(line)  # noqa: T201 - the answer itself
    return 0


def config_diff(first: Path, second: Path) -> list[str]:
    """Return ``key: first -> second`` for every key that differs, or one line saying none does.

    Raises:
        FileNotFoundError, ValueError: a folder without a ``config.json``, or a damaged one.
    """
    trees = [_configuration(path) for path in (first, second)]
    return diff(*trees) or [f"{first} and {second}: equal configurations"]


def _configuration(path: Path) -> dict[str, object]:
    tree = read_json(path / "config.json")
    if not isinstance(tree, dict):
        raise ValueError(f"{path}/config.json: holds {type(tree).__name__}; a mapping is expected")
    return tree


if __name__ == "__main__":
    raise SystemExit(main())

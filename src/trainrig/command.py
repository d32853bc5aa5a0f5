"""The ``trainrig`` command: one word for a system, one for what to do with it.

    trainrig icl sweep --preset quick

The systems register their commands under the entry point ``trainrig.commands``: a package with
``COMMANDS``, each a module with ``main(argv)`` that is imported when it is called, or one module
with ``main(argv)``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from trainrig import commands
from trainrig.cli import Parser, describe, entry
from trainrig.commands import groups
from trainrig.config import diff
from trainrig.data.catalogue import DATA_SETS, get_data_set, names
from trainrig.data.locations import data_root
from trainrig.errors import nearest
from trainrig.files import read_json
from trainrig.terminal import print_table

#: Commands of this module, for the overview.
OWN = {
    "doctor": "what works on this machine, what is missing, what will be slow",
    "data list|get|verify": "data sets: what there is, fetch, check",
    "config diff": "what differs between two runs",
}


def overview() -> str:
    """Return every command with what it does, one line each."""
    lines = ["usage: trainrig COMMAND [--help]", ""]
    for name, package in {"": commands, **groups()}.items():
        for command, text in getattr(package, "COMMANDS", {"": first_line(package)}).items():
            lines.append(f"  {f'{name} {command}'.strip():<20} {text}")
    for name, text in OWN.items():
        lines.append(f"  {name:<20} {text}")
    return "\n".join(lines)


def first_line(module: ModuleType) -> str:
    """Return what a module says it is."""
    return (module.__doc__ or "").partition("\n")[0]


def overview_of(name: str, package: ModuleType) -> str:
    """Return the commands of one system with what each does."""
    rows = [f"  {command:<12} {text}" for command, text in package.COMMANDS.items()]
    return "\n".join([f"usage: trainrig {name} COMMAND [--help]", "", *rows])


def run_command(module: str, name: str, words: list[str]) -> int:
    """Run a command that calls itself ``name`` in its help and messages."""
    sys.argv = [name, *words]  # what a run records of its making
    return importlib.import_module(module).main(words)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line of doctor, data and config."""
    parser = Parser(prog="trainrig", description=__doc__)
    topics = parser.add_subparsers(dest="topic", required=True, parser_class=Parser)
    text = "what works on this machine, what is missing, what will be slow; exit status 1 if broken"
    doctor = topics.add_parser("doctor", help=text, description=text)
    _add_data_dir(doctor)
    doctor.set_defaults(run=_doctor)
    _add_data(topics.add_parser("data", help="the data sets"))
    config = topics.add_parser("config", help="configurations of runs")
    actions = config.add_subparsers(dest="action", required=True, parser_class=Parser)
    text = "list the keys that differ between two runs; exit status 0 either way"
    between = actions.add_parser("diff", help=text, description=text)
    between.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="run directory")
    between.set_defaults(run=_config_diff)
    return parser


def _add_data(data: argparse.ArgumentParser) -> None:
    actions = data.add_subparsers(dest="action", required=True, parser_class=Parser)
    for name, text, run in (
        ("list", "every data set: what it is, where it is, its size and licence", _data_list),
        ("get", "put data sets in place: from archives on this machine, else by download", _get),
        ("verify", "check data sets against published sizes and digests", _verify),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run=run)
        _add_data_dir(action)
        if name != "list":
            few = "+" if name == "get" else "*"
            what = ", ".join(names()) + (" (all that are found)" if name == "verify" else "")
            action.add_argument(
                "names", nargs=few, metavar="NAME", type=get_data_set_name, help=what
            )
        if name == "get":
            text = "folder searched for archives, with all its subfolders, before downloading"
            action.add_argument("--source", type=Path, help=text)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    text = "folder of data sets ($TRAINRIG_DATA_DIR, else ./data)"
    parser.add_argument("--data-dir", type=Path, help=text)


def get_data_set_name(text: str) -> str:
    """Read a data set's name, for ``add_argument(type=...)``.

    >>> get_data_set_name("fmnist")
    'fashion_mnist'
    """
    try:
        return get_data_set(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@entry(team=True)  # those of the commands that are no work for several refuse it themselves
def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    first, rest = words[0], list(words[1:])
    if first in commands.COMMANDS:
        return run_command(f"{commands.__name__}.{first}", f"trainrig {first}", rest)
    systems = groups()
    if first in systems:
        return run_command_of(systems[first], first, rest)
    parser = make_parser()
    own = ["doctor", "data", "config"]
    if first not in own:
        _refuse_command(parser, first, [*commands.COMMANDS, *systems, *own])
    arguments = parser.parse_args(words)
    return arguments.run(arguments)


def run_command_of(package: ModuleType, system: str, words: list[str]) -> int:
    """Run a command of a system; without one, list what there is."""
    if not hasattr(package, "COMMANDS"):
        return run_command(package.__name__, f"trainrig {system}", words)
    if not words or words[0] in ("-h", "--help"):
        print(overview_of(system, package))
        return 0
    command, name = words[0], f"trainrig {system}"
    if command not in package.COMMANDS:
        _refuse_command(Parser(prog=name), command, list(package.COMMANDS))
    return run_command(f"{package.__name__}.{command}", f"{name} {command}", words[1:])


def _refuse_command(parser: argparse.ArgumentParser, word: str, known: list[str]) -> NoReturn:
    hint = nearest(word, known) or f" (known: {', '.join(known)})"
    parser.error(f"unknown command {word!r}{hint}")


def _say(text: str) -> None:
    print(text, flush=True)


def _doctor(arguments: argparse.Namespace) -> int:
    from trainrig.doctor import examine

    findings = examine(arguments.data_dir)
    print_table(("what", "state", "found"), [(f.topic, f.state, f.text) for f in findings])
    bad = [finding.topic for finding in findings if finding.state == "bad"]
    _say(f"\nto be fixed: {', '.join(bad)}" if bad else "\nready")
    return 1 if bad else 0


def _data_list(arguments: argparse.Namespace) -> int:
    root = data_root(arguments.data_dir)
    rows = []
    for one in DATA_SETS:
        folder = one.locate(root)
        if one.drawn:
            state = "drawn"
        elif folder is None:
            state = "archive" if one.archive(root) else "missing"
        else:
            state = "part" if one.missing(folder) else "found"
        size = f"{one.n_bytes / 1e6:.0f} MB" if one.n_bytes else "-" if one.drawn else "by hand"
        where = one.command(root) if folder is None else str(folder)
        text = "; ".join(part for part in (f"{where}: {one.what}", one.licence, one.page) if part)
        rows.append((one.name, state, size, text))
    print_table(("name", "state", "download", "where or how; what; licence; page"), rows)
    return 0


def _get(arguments: argparse.Namespace) -> int:
    from trainrig.data.fetch import get

    root = data_root(arguments.data_dir)
    return _each(arguments.names, lambda name: get(name, root, arguments.source))


def _verify(arguments: argparse.Namespace) -> int:
    from trainrig.data.verify import verify

    root = data_root(arguments.data_dir)
    names = arguments.names or [one.name for one in DATA_SETS if one.locate(root)]
    if not names:
        raise FileNotFoundError(f"{root}: no data set in it; get one with: trainrig data get NAME")
    return _each(names, lambda name: verify(get_data_set(name), root))


def _each(names: list[str], work: Callable[[str], str]) -> int:
    """Do the work for each set; one that fails does not stop the others."""
    failed = 0
    for name in names:
        try:
            _say(f"{name}: {work(name)}")
        except (OSError, ValueError, ImportError) as error:
            failed += 1
            print(f"error: {name}: {describe(error)}", file=sys.stderr)
    return 1 if failed else 0


def _config_diff(arguments: argparse.Namespace) -> int:
    for line in config_diff(*arguments.runs):
        _say(line)
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

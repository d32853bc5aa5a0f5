"""Check a port against recorded arrays of the reference system and print every comparison.

Cases, settings and bounds are read from the directory, so any directory in the recorded format
will do. Exit status 0 only if something was checked and nothing failed.

Example:
    python scripts/verify_parity.py icl --golden tests/parity/golden/icl
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import ModuleType

from trainrig.cli import Parser, entry
from trainrig.commands import groups

ROOT = Path(__file__).resolve().parents[3]
#: Where recorded arrays are looked for: whole recordings beside the repository, then the small
#: ones inside it. ``{}`` is a system.
PLACES = (
    ROOT.parent / "shared" / "reference" / "{}_golden",
    ROOT / "tests" / "parity" / "golden" / "{}",
)


def ports() -> dict[str, ModuleType]:
    """Return the command packages of the systems that have an original to compare with."""
    return {name: package for name, package in groups().items() if hasattr(package, "PARITY")}


def make_parser() -> argparse.ArgumentParser:
    """Return the command line, with the flags that a system's proof has of its own."""
    parser = Parser(description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    for name, package in ports().items():
        system = systems.add_parser(name, description=package.__doc__, help=package.PARITY[1])
        text = "directory of recorded arrays (../shared/reference, else tests/parity)"
        system.add_argument("--golden", type=Path, metavar="DIR", help=text)
        for flag, options in getattr(package, "PARITY_FLAGS", {}).items():
            system.add_argument(flag, **options)
    return parser


def find_golden(system: str, folder: Path | None = None) -> Path:
    """Return the directory of a system's recorded arrays, in ``folder`` or in ``PLACES``.

    Raises:
        FileNotFoundError: neither place has one.
    """
    templates = PLACES if folder is None else (folder / "{}_golden", folder / "{}")
    places = [Path(str(place).format(system)) for place in templates]
    for place in places:
        if place.is_dir():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise FileNotFoundError(f"no recorded arrays of {system}: neither {looked} is a directory")


@entry
def main(argv: list[str] | None = None) -> int:
    """Run all checks of one system and print the table."""
    options = vars(make_parser().parse_args(argv))
    name = options.pop("system")
    golden = options.pop("golden") or find_golden(name)
    from trainrig.parity import describe_processor  # torch is imported here: --help is instant

    report = importlib.import_module(ports()[name].PARITY[0]).run(golden, **options)
    print(describe_processor())
    print(report.table())
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())

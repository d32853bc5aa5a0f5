"""Check this port against recorded arrays of the reference systems and print every comparison.

Cases, settings and bounds are read from the directory, so any directory in the recorded format
will do. Exit status 0 only if something was checked and nothing failed.

Example:
    python scripts/verify_parity.py icl --golden tests/parity/golden/icl
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from trainrig.cli import Parser, entry
from trainrig.parity import describe_processor

#: system: (module with ``run(golden_dir) -> Report``, help)
SYSTEMS = {
    "icl": ("pytorch_port.parity", "in-context learning: models, loss, metrics, sequences"),
    "deepobs": ("deepobs.parity", "DeepOBS: test problems, data pipelines, runner"),
    "ptycho": ("ptycho_torch.parity", "ptychography: physics, data path, network, configuration"),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    for name, (_, text) in SYSTEMS.items():
        system = systems.add_parser(name, description=text, help=text)
        system.add_argument(
            "--golden", type=Path, required=True, metavar="DIR", help="directory of recorded arrays"
        )
        if name == "icl":
            system.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
            system.add_argument(
                "--sequences",
                type=int,
                default=50_000,
                help="drawn by the vectorised sampler per case of the statistics (50000)",
            )
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Run all checks of one system and print the table."""
    options = vars(parse_args(argv))  # torch is imported after this line: --help is instant
    module, _ = SYSTEMS[options.pop("system")]
    report = importlib.import_module(module).run(options.pop("golden"), **options)
    print(describe_processor())
    print(report.table())
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())

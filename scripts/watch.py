"""Watch runs in the terminal: one line per run, until all have ended. Reads only.

Step or epoch, speed, time left, loss, accuracies, norms and status of every run of any system at or
below a folder.
"stopped" is a run that no process works on any more; the command that made it resumes it. In a
pipe, the lines are printed once.

Example:
    python scripts/watch.py runs/torch_adamw_sweep/quick
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run, a sweep, or a folder of them")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between looks (2)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Show the runs."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if not arguments.every > 0:
        parser.error(f"--every is {arguments.every}; more than 0 seconds is expected")
    from trainrig.watch import watch

    try:
        watch(arguments.folder, arguments.every)
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

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

from trainrig.cli import Parser, add_look_flags, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    add_look_flags(parser, every_s=2.0)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Show the runs."""
    arguments = make_parser().parse_args(argv)
    from trainrig.watch import watch

    try:
        watch(arguments.folder, arguments.every)
    except KeyboardInterrupt:
        print()
    return 0

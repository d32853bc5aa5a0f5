"""Watch runs in the terminal: one line per run, until all have ended. Reads only.

The same as ``trainrig watch``; ``--help`` says how to use it.
"""

from trainrig.commands.watch import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

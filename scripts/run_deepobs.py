"""Run an optimizer on a DeepOBS test problem and write its result file.

The same as ``trainrig deepobs run``; ``--help`` says how to use it.
"""

from deepobs.commands.run import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

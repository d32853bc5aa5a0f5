"""Estimate an optimizer's runtime overhead against SGD by alternating runs.

The same as ``trainrig deepobs estimate``; ``--help`` says how to use it.
"""

from deepobs.commands.estimate import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

"""Estimate an optimizer's runtime overhead against SGD by alternating runs.

The same as ``trainrig deepobs estimate``; ``--help`` says how to use it.
"""

from deepobs.commands.estimate import main, parse_args

__all__ = ["main", "parse_args"]

if __name__ == "__main__":
    raise SystemExit(main())

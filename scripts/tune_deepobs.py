"""Tune an optimizer on a DeepOBS test problem: grid, random or Bayesian search.

The same as ``trainrig deepobs tune``; ``--help`` says how to use it.
"""

from deepobs.commands.tune import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

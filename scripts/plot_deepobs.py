"""Tables and figures of a DeepOBS results folder, the published baselines under every plot.

The same as ``trainrig deepobs plot``; ``--help`` says how to use it.
"""

from deepobs.commands.plot import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

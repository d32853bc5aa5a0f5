"""Train one in-context-learning run and evaluate both regimes at every checkpoint.

The same as ``trainrig icl train``; ``--help`` says how to use it.
"""

from pytorch_port.commands.train import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

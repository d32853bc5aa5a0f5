"""Run the weight-decay sweep of Figure 3, evaluate it and draw it.

The same as ``trainrig icl sweep``; ``--help`` says how to use it.
"""

from pytorch_port.commands.sweep import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

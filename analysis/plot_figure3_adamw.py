"""Draw Figure 3: in-context and in-weights accuracy against weight decay.

The same as ``trainrig icl figure3``; ``--help`` says how to use it.
"""

from pytorch_port.commands.figure3 import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

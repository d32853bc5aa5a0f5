"""Run the published in-context-learning experiments and draw ours over the published values.

The same as ``trainrig icl reproduce``; ``--help`` says how to use it.
"""

from pytorch_port.commands.reproduce import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

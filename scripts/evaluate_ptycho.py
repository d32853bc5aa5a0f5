"""Score a reconstruction against the scan's true object, or against the other half of the frames.

The same as ``trainrig ptycho evaluate``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.evaluate import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

"""Draw every archived figure again from the tables beside it; nothing is trained.

The same as ``trainrig figures``; ``--help`` says how to use it.
"""

from trainrig.commands.figures import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

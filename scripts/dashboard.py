"""Show runs in a browser, with new rows as they come, until Ctrl-C. Reads the runs only.

The same as ``trainrig dashboard``; ``--help`` says how to use it.
"""

from trainrig.commands.dashboard import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

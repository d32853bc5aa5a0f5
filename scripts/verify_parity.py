"""Check a port against recorded arrays of the reference system and print every comparison.

The same as ``trainrig verify``; ``--help`` says how to use it.
"""

from trainrig.commands.verify import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

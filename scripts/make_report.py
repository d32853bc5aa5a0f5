"""Write one self-contained HTML page about whatever scripts of this project left behind.

The same as ``trainrig report``; ``--help`` says how to use it.
"""

from trainrig.commands.report import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

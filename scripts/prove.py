"""Run the parity proofs of all systems in every processor setting, one line for each run.

The same as ``trainrig prove``; ``--help`` says how to use it.
"""

from trainrig.commands.prove import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())

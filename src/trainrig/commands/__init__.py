"""Commands for the runs of every system."""

from __future__ import annotations

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "report": "one page about a run, a sweep or any result folder",
    "watch": "runs in a terminal",
    "dashboard": "runs in a browser",
    "figures": "all archived figures again, from their tables",
}

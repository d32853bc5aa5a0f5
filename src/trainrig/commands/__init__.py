"""Commands for the runs of every system, and where the systems' own are found."""

from __future__ import annotations

from importlib import metadata
from types import ModuleType

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "report": "one page about a run, a sweep or any result folder",
    "watch": "runs in a terminal",
    "dashboard": "runs in a browser",
    "figures": "all archived figures again, from their tables",
    "verify": "compare a port with recorded arrays of its original",
    "prove": "the same for every port, with every vector instruction set and 1 and 2 threads",
}


def groups() -> dict[str, ModuleType]:
    """Return the systems that are installed, by the word for each: packages of commands."""
    found = metadata.entry_points(group="trainrig.commands")
    return {point.name: point.load() for point in sorted(found, key=lambda point: point.name)}

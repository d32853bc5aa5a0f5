"""Which process of a run this one is, as ``torchrun`` says in the environment; imports no torch."""

from __future__ import annotations

import os


def process_count() -> int:
    """Return how many processes train this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return this process's number; 0 leads. Processes that Lightning starts have a local one."""
    if process_count() == 1:
        return 0
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def alone(what: str) -> str:
    """Return the sentence that refuses several processes where one is expected."""
    return (
        f"{what}: works in one process, and torchrun started {process_count()} (WORLD_SIZE); "
        "start it with python"
    )

"""How far a run is, read from its directory; imports no torch, so that watching is light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainrig.files import read_json

#: Statuses of a run that will not go on.
FINAL = ("complete", "diverged")


def read_status(path: Path) -> dict[str, Any]:
    """Return a run's status; an absent file means ``new``, an unreadable one ``failed``."""
    try:
        status = read_json(path / "status.json")
    except FileNotFoundError:
        return {"status": "new"}
    except ValueError as error:
        return {"status": "failed", "message": str(error)}
    return status if isinstance(status, dict) and "status" in status else {"status": "failed"}

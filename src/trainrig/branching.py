"""Start a run from a checkpoint of another: its weights, or its weights and everything else.

The new run's identity holds the digest of what it began from, so that it is the same run only if
its beginning is the same, wherever the other run's folder lies by then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_manifest,
)
from trainrig.errors import CheckpointError
from trainrig.files import read_json
from trainrig.runs import LATEST


@dataclass(frozen=True, slots=True)
class Branch:
    """What a run begins from.

    Attributes:
        checkpoint: of the other run.
        state: whether optimizer, random states and the number of the step are taken over as well.
        sha256: of the files that are taken over.
    """

    checkpoint: Checkpoint
    state: bool
    sha256: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Return what the new run's configuration says of its beginning."""
        return {"step": self.checkpoint.step, "state": self.state, "sha256": list(self.sha256)}


def open_branch(name: str, *, state: bool) -> Branch:
    """Load the checkpoint that ``RUN`` or ``RUN@STEP`` names; the newest one without a step.

    Args:
        name: path of a run directory, perhaps with ``@`` and the step of one of its checkpoints.
        state: whether everything is taken over, not the weights alone.

    Raises:
        ValueError: no such run or step.
        CheckpointError: the checkpoint, or the newest one, is damaged.
    """
    named = re.fullmatch(r"(.+)@(\d+)", name)
    path, step = (Path(named[1]), int(named[2])) if named else (Path(name), None)
    folder = path / LATEST
    steps = dict(list_checkpoints(folder))
    if not steps:
        raise ValueError(f"--init-from {name}: {path} holds no checkpoint; give a run directory")
    if step is not None and step not in steps:
        have = ", ".join(map(str, steps))
        raise ValueError(
            f"--init-from {name}: {path} has no checkpoint of step {step}; it has {have}"
        )
    if step is not None:
        checkpoint = load_checkpoint(steps[step])
    else:
        found, ignored = latest_checkpoint(folder)
        if ignored or found is None:
            raise CheckpointError(
                f"--init-from {name}: the newest checkpoint is damaged ({ignored[0]}); name the "
                f"step of another, {path}@STEP"
            )
        checkpoint = found
    files = read_manifest(checkpoint.path)["files"]
    taken = ("weights.pt", "state.pt") if state else ("weights.pt",)
    return Branch(checkpoint, state, tuple(files[file]["sha256"] for file in taken))


def find_branch(
    path: Path, name: str | None, *, state: bool
) -> tuple[Branch | None, dict[str, Any] | None]:
    """Return what the run in ``path`` begins from, and its identity.

    A run that has begun remembers it: the other run is not needed any more, and is not opened.

    Raises:
        ValueError, CheckpointError: as ``open_branch``.
    """
    if name is None:
        return None, None
    if list_checkpoints(path / LATEST):
        config = read_json(path / "config.json") if (path / "config.json").exists() else {}
        known = config.get("branch") if isinstance(config, dict) else None
        if isinstance(known, dict) and known.get("state") == state:
            return None, known
    branch = open_branch(name, state=state)
    return branch, branch.identity()

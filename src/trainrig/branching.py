"""Start a run from a checkpoint of another: its weights, or its weights and everything else.

The new run's identity holds the digest of what it began from, so that it is the same run only if
its beginning is the same, wherever the other run's folder lies by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    path, step = _split(name)
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
    return Branch(checkpoint, state, _digests(checkpoint.path, state))


def find_branch(
    path: Path, name: str | None, *, state: bool, overwrite: bool = False
) -> tuple[Branch | None, dict[str, Any] | None]:
    """Return what the run in ``path`` begins from, and its identity.

    A run that has begun remembers it: the other run is not needed any more. If it is still there,
    it must be the one that the run began from. With ``overwrite`` the run begins again.

    Raises:
        ValueError, CheckpointError: as ``open_branch``; or the run began from something else.
    """
    if name is None:
        return None, None
    if list_checkpoints(path / LATEST) and not overwrite:
        config = read_json(path / "config.json") if (path / "config.json").exists() else {}
        known = config.get("branch") if isinstance(config, dict) else None
        if isinstance(known, dict) and known.get("state") == state:
            _check_same(path, name, known)
            return None, known
    branch = open_branch(name, state=state)
    return branch, branch.identity()


def _check_same(path: Path, name: str, known: Mapping[str, Any]) -> None:
    """Refuse a run that was begun from another checkpoint than ``name`` says, as far as is known.

    Raises:
        ValueError: another step, or another run's weights.
    """
    source, step = _split(name)
    if step not in (None, known.get("step")):
        raise ValueError(
            f"{path}: began from step {known.get('step')}, not from {step} (--init-from {name}); "
            "use another output directory, or --overwrite to start over"
        )
    there = dict(list_checkpoints(source / LATEST)).get(known.get("step", -1))
    if there is not None and list(_digests(there, known["state"])) != known.get("sha256"):
        raise ValueError(
            f"{path}: began from another run than {source} (--init-from {name}); "
            "use another output directory, or --overwrite to start over"
        )


def _split(name: str) -> tuple[Path, int | None]:
    """Return the run and the step of ``RUN`` or ``RUN@STEP``."""
    named = re.fullmatch(r"(.+)@(\d+)", name)
    return (Path(named[1]), int(named[2])) if named else (Path(name), None)


def _digests(checkpoint: Path, state: bool) -> tuple[str, ...]:
    """Return the digests of the files that a branch takes over."""
    files = read_manifest(checkpoint)["files"]
    taken = ("weights.pt", "state.pt") if state else ("weights.pt",)
    return tuple(files[file]["sha256"] for file in taken)

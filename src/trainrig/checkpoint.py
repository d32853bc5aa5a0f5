"""Checkpoints that are either whole or ignored.

A checkpoint is the directory ``step_{k}`` with ``weights.pt`` (model parameters and buffers),
``state.pt`` (optimizer, step, sampler position, random states, log positions) and ``manifest.json``
(sizes and SHA-256). All three are written and fsynced under a temporary name and appear by one
directory rename; the previous checkpoint is removed only after that. Everything loads in torch's
safe mode, so that a checkpoint from a stranger executes nothing.

A run that is asked to stop between two regular checkpoints writes ``step_{k}_interim``; it goes as
soon as a newer one is durable, so that an interrupted run ends with the files of any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from trainrig.errors import CheckpointError
from trainrig.files import fsync_directory, temporary_name, write_durably

FILES = ("weights.pt", "state.pt")
_NAME = re.compile(r"step_(\d+)(_interim)?")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One loaded checkpoint: ``weights`` for the model, ``state`` for everything else."""

    step: int
    path: Path
    weights: dict[str, Any]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    keep_last: int = 2,
    interim: bool = False,
) -> Path:
    """Write ``folder/step_{step}`` durably, then drop older ones beyond the ``keep_last`` newest.

    Args:
        folder: e.g. ``<run>/checkpoints/models/latest``; made if absent.
        step: optimizer steps completed.
        weights: the model's ``state_dict()``.
        state: tensors and builtins only (checked by what safe loading accepts).
        keep_last: how many regular checkpoints stay, at least 1.
        interim: of a run that stops off its schedule; takes no regular one's place.

    Raises:
        OSError: disk full or not writable; earlier checkpoints are untouched then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / (f"step_{step}_interim" if interim else f"step_{step}")
    temporary = temporary_name(folder / f"step_{step}")
    temporary.mkdir()
    try:
        manifest: dict[str, Any] = {"step": step, "files": {}}
        for name, value in zip(FILES, (weights, state), strict=True):
            # Through memory: torch embeds a file's name in the archive, so that equal content
            # under different names would differ in bytes.
            buffer = io.BytesIO()
            torch.save(tree_map_only(torch.Tensor, _compact, dict(value)), buffer)
            content = buffer.getvalue()
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][name] = {"bytes": len(content), "sha256": digest}
            write_durably(temporary / name, content)
        write_durably(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        fsync_directory(temporary)
        if final.exists():  # only ever an invalid one: a valid one would have been resumed from
            shutil.rmtree(final)
        os.rename(temporary, final)
        fsync_directory(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    prune(folder, step, keep_last)
    return final


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of a larger storage as a copy: a file would hold the whole storage."""
    own = tensor.numel() * tensor.element_size()
    return tensor if tensor.untyped_storage().nbytes() == own else tensor.clone()


def prune(folder: Path, step: int, keep_last: int) -> None:
    """Keep the newest ``keep_last`` regular checkpoints up to ``step``; drop what is older.

    An interim checkpoint stays only while it is the one of ``step``.
    """
    regular, old = [], []
    for number, path in list_checkpoints(folder):
        if number <= step and not _is_interim(path):
            regular.append(path)
        elif number < step:
            old.append(path)
    old += regular[: max(len(regular) - max(keep_last, 1), 0)]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def _is_interim(path: Path) -> bool:
    return path.name.endswith("_interim")


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return ``(step, path)`` in ascending order; zero-padded names are understood."""
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load and verify one checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated, altered, or holds what safe mode refuses.
    """
    manifest = read_manifest(path)
    named = _NAME.fullmatch(path.name)
    if named and int(named[1]) != manifest["step"]:
        raise CheckpointError(
            f"{path}: its manifest says step {manifest['step']}; the directory was renamed"
        )
    loaded = {}
    for name in FILES:
        content = _verified_content(path, name, manifest)
        loaded[name] = load_dictionary(path / name, device, content=content)
    return Checkpoint(manifest["step"], path, loaded["weights.pt"], loaded["state.pt"])


def load_dictionary(
    path: Path, device: torch.device | str = "cpu", *, content: bytes | None = None
) -> dict[str, Any]:
    """Return the dictionary of tensors and plain values in a file of ``torch.save``.

    Args:
        path: of the file.
        device: where its tensors go.
        content: of the file, where it has been read already.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: damaged, of another kind, or with objects that safe mode refuses.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about formats that are refused anyway
            file = path if content is None else io.BytesIO(content)
            loaded = torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: refused, cannot be loaded in safe mode ({reason})"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds no dictionary; not one of our checkpoints")
    return loaded


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest, or say why the directory is no checkpoint."""
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        files = manifest["files"]
        if set(files) != set(FILES) or not isinstance(manifest["step"], int):
            raise ValueError(f"step {manifest['step']!r}, files {sorted(files)}")
        for name in FILES:
            _ = files[name]["bytes"], files[name]["sha256"]
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path}: no manifest.json; not a checkpoint, or an incomplete one"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a checkpoint manifest ({error}); expected step and sizes of {FILES}"
        ) from None


def _verified_content(path: Path, name: str, manifest: dict[str, Any]) -> bytes:
    expected = manifest["files"][name]
    try:
        content = (path / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path / name}: missing; the checkpoint is incomplete") from None
    except OSError as error:  # a bad sector, a directory in its place
        raise CheckpointError(f"{path / name}: cannot be read ({error.strerror})") from None
    if len(content) != expected["bytes"]:
        raise CheckpointError(
            f"{path / name}: {len(content)} bytes; the manifest expects {expected['bytes']}"
        )
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{path / name}: content does not match the manifest's SHA-256")
    return content


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights strictly.

    Raises:
        CheckpointError: naming the parameters that are missing, unknown or of another shape.
    """
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint.path}: belongs to another model ({reason})") from None


def latest_checkpoint(
    folder: Path, device: torch.device | str = "cpu", *, not_after: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint, and a message for each newer one that was ignored.

    Args:
        folder: holds the checkpoints.
        device: where their tensors go.
        not_after: pass over those of later steps, without a message.

    Raises:
        CheckpointError: there are checkpoints, and none is valid.
    """
    ignored: list[str] = []
    for step, path in reversed(list_checkpoints(folder)):
        if not_after is not None and step > not_after:
            continue
        try:
            return load_checkpoint(path, device), ignored
        except CheckpointError as error:
            ignored.append(f"ignored {error}")
    if ignored:
        raise no_valid(folder, ignored)
    return None, ignored


def last_checkpoint(
    folder: Path, device: torch.device | str = "cpu", *, ended_at: int | None = None
) -> Checkpoint:
    """Return the newest checkpoint, for what speaks of the run as it is: never an older one.

    Args:
        folder: holds the checkpoints.
        device: where their tensors go.
        ended_at: step that a complete run ended with; its checkpoint must be there.

    Raises:
        CheckpointError: there is none, the newest is damaged, or that of the end is gone.
    """
    checkpoint, ignored = latest_checkpoint(folder, device)
    if checkpoint is None and ended_at is None:
        raise CheckpointError(f"{folder}: holds no checkpoint; train it first")
    if checkpoint is not None and not ignored and ended_at in (None, checkpoint.step):
        return checkpoint
    gone = f"{folder}: the run is complete, but its checkpoint of step {ended_at} is not there"
    wrong = ignored[0].removeprefix("ignored ") if ignored else gone
    older = ""
    if checkpoint is not None:
        older = f"the one of step {checkpoint.step} is not shown in its place: "
    raise CheckpointError(
        f"{wrong}; {older}restore it, or remove the run's folder and train the run again"
    )


def valid_steps(folder: Path) -> tuple[list[int], list[str]]:
    """Return the steps of the valid checkpoints, ascending, and a message for each other one.

    Raises:
        CheckpointError: there are checkpoints, and none is valid.
    """
    steps, ignored = [], []
    for step, path in list_checkpoints(folder):
        try:
            load_checkpoint(path)
            steps.append(step)
        except CheckpointError as error:
            ignored.append(f"ignored {error}")
    if ignored and not steps:
        raise no_valid(folder, ignored)
    return steps, ignored


def common_step(folders: Sequence[Path], interval: int) -> tuple[int, list[list[str]]]:
    """Find where runs that go in step resume, after one was killed before the others had saved.

    Args:
        folders: of each run's checkpoints.
        interval: steps between two checkpoints.

    Returns:
        The newest step of which all runs have a valid checkpoint, 0 for the beginning, and each
        run's messages about damaged ones.

    Raises:
        CheckpointError: a run has checkpoints but no valid one, or would lose more than what lies
            between two of its checkpoints.
    """
    found = [valid_steps(folder) for folder in folders]
    common = max(set.intersection(*({0, *steps} for steps, _ in found)))
    for folder, (steps, _) in zip(folders, found, strict=True):
        if steps and steps[-1] - common > interval:
            raise CheckpointError(
                f"{folder}: stands at step {steps[-1]}, but others of its pack have no valid "
                f"checkpoint later than step {common}; restore theirs, or --overwrite all"
            )
    return common, [ignored for _, ignored in found]


def no_valid(folder: Path, ignored: Sequence[str]) -> CheckpointError:
    """Return the error of a folder of damaged checkpoints: no run starts over in silence."""
    return CheckpointError(
        f"{folder}: holds no valid checkpoint ({ignored[0]}); restore one, or remove "
        "it (--overwrite, where there is that flag) to start over"
    )


def remove_leftovers(folder: Path) -> None:
    """Remove temporary directories that a killed process left; call it under the run's lock."""
    for path in folder.glob(".step_*.tmp") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)

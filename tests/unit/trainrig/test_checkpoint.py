"""Checkpoints: whole, verified, executing nothing, and never at the cost of an earlier one."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from trainrig import files
from trainrig.checkpoint import (
    FILES,
    common_step,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    valid_steps,
)
from trainrig.errors import CheckpointError
from trainrig.seeding import capture_rng


def save(folder: Path, step: int, **options) -> Path:
    weights = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    state = {"step": step, "rng": capture_rng(), "nested": {"list": [1, 2.5, None, "x"]}}
    return save_checkpoint(folder, step, weights, state, **options)


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest agree with it, as an attacker would."""
    (path / name).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_round_trip_keeps_every_bit_and_type(tmp_path):
    tensor = torch.tensor([float("nan"), -0.0, 1e-45])
    state = {"python": (3, (1, 2), None), "tensor": tensor, "deep": {"a": [True, 1.5]}}
    path = save_checkpoint(tmp_path, 7, {"w": tensor}, state)
    loaded = load_checkpoint(path)
    assert loaded.step == 7
    assert loaded.weights["w"].numpy().tobytes() == tensor.numpy().tobytes()
    assert loaded.state["python"] == (3, (1, 2), None)
    assert loaded.state["deep"] == {"a": [True, 1.5]}


def test_equal_content_gives_equal_bytes(tmp_path):
    one, two = save(tmp_path / "a", 3), save(tmp_path / "b", 3)
    for name in (*FILES, "manifest.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_keeps_the_last_n_and_removes_only_after_the_new_one_is_there(tmp_path):
    for keep in (1, 2, 5):
        folder = tmp_path / str(keep)
        for step in range(1, 8):
            save(folder, step, keep_last=keep)
            kept = [s for s, _ in list_checkpoints(folder)]
            assert kept == list(range(max(1, step - keep + 1), step + 1))


def test_pruning_never_takes_the_checkpoint_just_written(tmp_path):
    save(tmp_path, 5)
    newer = save(tmp_path, 20)
    (newer / "weights.pt").write_bytes(b"")
    save(tmp_path, 10, keep_last=1)
    checkpoint, _ = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 10


def test_zero_padded_names_sort_as_numbers(tmp_path):
    for step, name in ((2, "step_0002"), (10, "step_10"), (9, "step_00009")):
        os.rename(save(tmp_path / "made", step), tmp_path / name)
    (tmp_path / "step_x").mkdir()
    (tmp_path / "step_99").write_text("a file is no checkpoint")
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2, 9, 10]
    assert latest_checkpoint(tmp_path)[0].step == 10


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "bit", "directory"])
def test_damage_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "directory":
        file.mkdir()
    elif damage != "missing":
        if damage == "bit":
            content[len(content) // 2] ^= 1
        kept = {"empty": 0, "truncated": len(content) // 2, "bit": len(content)}[damage]
        file.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match="step_2") as caught:
        load_checkpoint(file.parent)
    assert "\n" not in str(caught.value)
    checkpoint, ignored = latest_checkpoint(tmp_path)
    assert checkpoint.step == 1
    assert valid_steps(tmp_path) == ([1], ignored)
    assert len(ignored) == 1
    assert "step_2" in ignored[0]


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "null",
        "3",
        '{"step": 2}',
        '{"step": "2", "files": {"weights.pt": {}, "state.pt": {}}}',
        '{"step": 2, "files": {"weights.pt": {}, "state.pt": {}}}',
        '{"step": 2, "files": ["weights.pt", "state.pt"]}',
        '{"step": 2, "files": {"weights.pt": 1, "state.pt": 2}}',
        "[" * 100_000,
    ],
)
def test_foreign_manifest_is_a_checkpoint_error(tmp_path, manifest):
    path = save(tmp_path, 2)
    (path / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(path)


def test_a_directory_of_something_else_is_no_checkpoint(tmp_path):
    (tmp_path / "step_3").mkdir()
    (tmp_path / "step_3" / "model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "step_3")
    for find in (latest_checkpoint, valid_steps):
        with pytest.raises(
            CheckpointError, match=r"holds no valid checkpoint .*step_3.*to start over"
        ):
            find(tmp_path)


def test_a_renamed_checkpoint_does_not_pass_for_a_later_one(tmp_path):
    os.rename(save(tmp_path, 10), tmp_path / "step_20")
    with pytest.raises(CheckpointError, match="says step 10"):
        load_checkpoint(tmp_path / "step_20")


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (self.path, "w")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("container", ["torch", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, name, container):
    path, victim = save(tmp_path, 1), tmp_path / "executed"
    payload, buffer = {"w": _Evil(str(victim))}, io.BytesIO()
    if container == "pickle":
        pickle.dump(payload, buffer)
    else:
        torch.save(payload, buffer, _use_new_zipfile_serialization=container == "torch")
    forge(path, name, buffer.getvalue())
    with pytest.raises(CheckpointError, match="safe mode"):
        load_checkpoint(path)
    assert not victim.exists()


def test_a_tensor_instead_of_a_dictionary_is_refused(tmp_path):
    path, buffer = save(tmp_path, 1), io.BytesIO()
    torch.save(torch.zeros(2), buffer)
    forge(path, "weights.pt", buffer.getvalue())
    with pytest.raises(CheckpointError, match="no dictionary"):
        load_checkpoint(path)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save(tmp_path, 2, keep_last=1)
    assert "step_2" in caught.value.filename
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]


def test_an_invalid_checkpoint_of_the_same_step_is_replaced(tmp_path):
    path = save(tmp_path, 4)
    (path / "state.pt").unlink()
    save(tmp_path, 4)
    assert load_checkpoint(path).step == 4


def test_leftovers_of_a_killed_writer_go_and_nothing_else(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step_2.123.tmp").mkdir()
    (tmp_path / ".step_2.123.tmp" / "weights.pt").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert latest_checkpoint(tmp_path)[0].step == 1
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "step_1"]
    remove_leftovers(tmp_path / "absent")


def test_a_pack_goes_back_to_the_newest_step_that_all_have(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    assert common_step([one, other], 1) == (0, [[], []])
    for step in (1, 2):
        save(one, step)
    save(other, 1)
    assert common_step([one, other], 1) == (1, [[], []])
    save(other, 2)
    (other / "step_2" / "weights.pt").write_bytes(b"damaged")
    step, (mine, theirs) = common_step([one, other], 1)
    assert (step, mine) == (1, [])
    assert "step_2" in theirs[0]


def test_a_pack_does_not_start_over_in_silence(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for step in (2, 3):
        save(one, step)
    for step in (1, 2):
        save(other, step)
    (other / "step_2" / "weights.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"one: stands at step 3.* later than step 0"):
        common_step([one, other], 1)

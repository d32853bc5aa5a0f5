"""What may befall an unfinished run, in all four systems: refused, or gone on with exactly."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess

import pytest
import torch

from kills import fingerprint
from trainrig.files import read_json, write_json
from trainrig.run_status import read_status
from trainrig.runs import FORCE_RESUME

SYSTEMS = ("icl", "optimizer_quality", "deepobs", "ptycho")
#: ICL's own, more thorough ones are in tests/faults.
OTHERS = SYSTEMS[1:]
#: Looks at the request to stop until a run has two checkpoints.
LOOKS = {"icl": 10, "optimizer_quality": 5, "deepobs": 5, "ptycho": 6}
DEEPOBS = """
    quadratic_deep --optimizer Adam --lr 0.04 -N 2 --quiet --threads 1 --checkpoint_interval_s 0
"""
#: Flags, or a file with what it says instead, and the difference that is shown.
CHANGES = {
    ("icl", "configuration"): (["--batch-size", "8"], "training.batch_size: 4 -> 8"),
    ("icl", "engine"): (["--engine", "compile"], "engine: eager -> compile"),
    # A flag would make another folder there.
    ("optimizer_quality", "configuration"): (
        {"config.json": {"batch_size": 50}},
        "batch_size: 50 -> 100",
    ),
    ("optimizer_quality", "engine"): (["--set", "engine=compile"], "engine: eager -> compile"),
    ("deepobs", "configuration"): (["--train_log_interval", "5"], "train_log_interval: 10 -> 5"),
    ("deepobs", "engine"): ({"config.json": {"engine": "pack"}}, "engine: pack -> (absent)"),
    ("ptycho", "configuration"): (["--batch_size", "8"], "training.batch_size: 4 -> 8"),
    ("ptycho", "engine"): (["--precision", "bf16-mixed"], "precision: 32-true -> bf16-mixed"),
}
CODE = ({"environment.json": {"source_sha256": "older"}}, "source_sha256: older -> ")
DEVICE = ({"environment.json": {"device": "cuda:0"}}, "device: cuda -> cpu")
for one in SYSTEMS:
    CHANGES |= {(one, "code"): CODE, (one, "device"): DEVICE}
CACHE: dict = {}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.delenv(FORCE_RESUME, raising=False)
    torch.set_num_threads(1)


@pytest.fixture
def commands(commands):
    """Those of every test, with a smaller problem that saves after each step."""
    small = ("run_deepobs", lambda folder: [*DEEPOBS.split(), "--output_dir", folder])
    return commands | {"deepobs": small}


@pytest.fixture
def unfinished(commands, call_script, signalled, tmp_path, tmp_path_factory):
    """Return a function: system -> how to continue a run of it, its folder, a finished twin."""

    def make(system):
        script, argv = commands[system]

        def go_on(folder, *more):
            return call_script(script, [*argv(folder), *more])

        if system not in CACHE:
            CACHE[system] = tmp_path_factory.mktemp(system)
            signalled(signal.SIGUSR1, LOOKS[system])
            assert go_on(CACHE[system] / "part").code == 85
            signalled(None, 0)
            assert go_on(CACHE[system] / "whole").code == 0
        part = tmp_path / "part"
        shutil.copytree(CACHE[system] / "part", part)
        return go_on, part, CACHE[system] / "whole"

    return make


def run_directory(folder):
    (status,) = folder.rglob("status.json")
    return status.parent


def checkpoints(folder):
    """Return files of the run's checkpoints, one each, the newest last."""
    found = [*folder.rglob("step_*/weights.pt")]
    return sorted(found, key=lambda path: int(path.parent.name.split("_")[1]))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def assert_refused(ended, *words):
    assert ended.code == 1, ended.err
    (line,) = ended.error_lines
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize(("system", "what"), CHANGES, ids=["-".join(key) for key in CHANGES])
def test_another_run_is_not_gone_on_with(
    system, what, unfinished, tree_hash, tmp_path, monkeypatch
):
    go_on, part, _ = unfinished(system)
    change, said = CHANGES[system, what]
    flags = change if isinstance(change, list) else []
    for name, values in {} if flags else change.items():
        file = run_directory(part) / name
        write_json(file, read_json(file) | values)
    before = tree_hash(part)
    assert_refused(go_on(part, *flags), said)
    assert tree_hash(part) == before
    if what == "device":  # the code's change is forced in the same way
        monkeypatch.setenv(FORCE_RESUME, "1")
        assert go_on(part).code == 0
        assert read_json(run_directory(part) / "environment.json")["forced_changes"] == [said]


@pytest.mark.parametrize("system", OTHERS)
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(system, unfinished, caplog):
    go_on, part, whole = unfinished(system)
    *_, newest = checkpoints(part)
    damage(newest)
    ended = go_on(part)
    assert ended.code == 0, ended.err
    assert f"ignored {newest}" in ended.err + caplog.text
    assert fingerprint(part) == fingerprint(whole)


@pytest.mark.parametrize("system", OTHERS)
def test_nothing_starts_over_in_silence(system, unfinished, tree_hash):
    go_on, part, _ = unfinished(system)
    for file in checkpoints(part):
        damage(file)
    before = tree_hash(run_directory(part) / "checkpoints")
    assert_refused(go_on(part), "holds no valid checkpoint", "to start over")
    assert tree_hash(run_directory(part) / "checkpoints") == before


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_process_at_a_time(system, unfinished, tree_hash):
    go_on, part, _ = unfinished(system)
    with (run_directory(part) / ".lock").open("r+") as lock:
        lock.write("pid 7 on node3")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = tree_hash(part)
        assert_refused(go_on(part), "another process (pid 7 on node3", "working on this run")
        assert tree_hash(part) == before


@pytest.mark.parametrize("system", ["icl", "optimizer_quality", "ptycho"])
def test_a_finished_run_is_left_as_it_is_and_another_is_refused(
    system, commands, call_script, tree_hash, tmp_path
):
    script, argv = commands[system]
    assert call_script(script, argv(tmp_path / "run")).code == 0
    before = tree_hash(tmp_path / "run")
    assert call_script(script, argv(tmp_path / "run")).code == 0
    assert tree_hash(tmp_path / "run") == before
    # A CIFAR run of another batch size has a folder of its own.
    change, said = CHANGES[system, "engine" if system == "optimizer_quality" else "configuration"]
    assert_refused(call_script(script, [*argv(tmp_path / "run"), *change]), said)
    assert tree_hash(tmp_path / "run") == before
    assert call_script(script, [*argv(tmp_path / "run"), "--overwrite"]).code == 0
    assert tree_hash(tmp_path / "run") != before


@pytest.mark.parametrize("system", OTHERS)
def test_numbers_that_are_not_finite_end_a_run_as_diverged(system, commands, call_script, tmp_path):
    script, argv = commands[system]
    ended = call_script(script, [*argv(tmp_path / "run"), "--lr", "1e30"])
    assert read_status(run_directory(tmp_path / "run"))["status"] == "diverged"
    if system == "deepobs":  # a result among others
        assert (ended.code, ended.error_lines) == (0, [])
        assert "diverged" in ended.out
    else:
        assert_refused(ended, "diverged")


@pytest.fixture
def disk(tmp_path):
    """Return a folder on a file system of its own, and a function that changes its options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if os.geteuid() != 0 or shutil.which("mount") is None or mount("size=256m") != 0:
        pytest.skip("needs root and mount for a small tmpfs")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("system", OTHERS)
def test_a_full_or_read_only_disk_loses_nothing(system, unfinished, disk):
    go_on, part, whole = unfinished(system)
    folder, remount = disk
    shutil.copytree(part, folder / "run")
    used = sum(f.stat().st_blocks * 512 for f in folder.rglob("*"))
    assert remount(f"rw,size={used + 2**16}") == 0
    assert_refused(go_on(folder / "run"), str(folder), "No space left on device")
    assert read_status(run_directory(folder / "run"))["status"] in ("failed", "running")
    assert remount("ro") == 0
    assert_refused(go_on(folder / "run"), str(folder), "Read-only file system")
    assert remount("rw,size=256m") == 0
    assert go_on(folder / "run").code == 0
    assert fingerprint(folder / "run") == fingerprint(whole)


def test_a_lost_loader_is_named(unfinished, monkeypatch):
    from ptycho_torch.train.train import History

    go_on, part, whole = unfinished("ptycho")
    real = History.add

    def lose(history, *arguments):
        real(history, *arguments)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    monkeypatch.setattr(History, "add", lose)
    assert_refused(go_on(part, "--num-workers", "1"), "a data-loading process was killed")
    monkeypatch.undo()
    assert go_on(part).code == 0
    assert fingerprint(part) == fingerprint(whole)

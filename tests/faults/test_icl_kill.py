"""Killed with SIGKILL at any moment, the same command ends bit-identical to an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from trainrig.checkpoint import latest_checkpoint, list_checkpoints
from trainrig.runs import LATEST, read_status
from trainrig.tracking.progress import read_progress

SCRIPT = "pytorch_train"
#: Chains of kills, each on one directory: (point, n-th time that the process gets there).
CHAINS = {
    "checkpoint": [
        ("middle of a file of a checkpoint", 1),
        ("files fsynced, before rename", 1),
        ("renamed, before fsync of the directory", 1),
        ("middle of a file of a checkpoint", 5),
        ("files fsynced, before rename", 2),
        ("renamed, before fsync of the directory", 2),
        ("before fsync", 8),
    ],
    "logs": [
        ("row appended", 1),
        ("rows appended, before checkpoint", 1),
        ("rows durable, before checkpoint", 2),
        ("middle of a line of metrics.jsonl", 3),
        ("middle of a line of progress.txt", 4),
        ("one log of two cut back", 1),
        ("row appended", 5),
        ("rows appended, before checkpoint", 2),
    ],
    "after the checkpoint": [
        ("checkpoint done, before pruning and status", 1),
        ("middle of pruning", 1),
        ("checkpoint and pruning done, before status", 2),
        ("status written", 2),
        ("temporary file written, before replace", 3),
    ],
    "at the very end": [
        ("checkpoint and pruning done, before status", 8),  # that of step 24: running
        ("checkpoint and pruning done, before status", 2),  # complete
    ],
    "last pruning": [("middle of pruning", 4)],
    "first moments": [
        ("before fsync", 1),
        ("temporary file written, before replace", 1),
        ("temporary file written, before replace", 2),
        ("status written", 1),
    ],
}
RANDOM_KILLS = 8


@pytest.fixture(scope="module")
def undisturbed(fork_server, toy_argv, tmp_path_factory):
    """A run that nothing interrupted."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    return path, ended.seconds


@pytest.mark.parametrize("chain", CHAINS)
def test_killed_at_a_known_point(chain, fork_server, toy_argv, undisturbed, assert_same, tmp_path):
    path = tmp_path / "run"
    for point, n in CHAINS[chain]:
        ended = fork_server.run(SCRIPT, toy_argv(path), point=point, n=n)
        assert ended.killed, (point, n, ended.output)
        assert ended.proof == point
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])


def test_killed_at_random_moments(fork_server, toy_argv, undisturbed, assert_same, tmp_path):
    path, moments, kills = tmp_path / "run", random.Random(7), 0
    for _ in range(5 * RANDOM_KILLS):
        after = moments.uniform(0.1, 0.9) * undisturbed[1]
        ended = fork_server.run(SCRIPT, toy_argv(path), kill_after_s=after)
        kills += ended.killed
        if not ended.killed or read_status(path)["status"] == "complete":
            assert_same(path, undisturbed[0])
            shutil.rmtree(path)
        if kills >= RANDOM_KILLS:
            break
    assert kills >= RANDOM_KILLS
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])


def test_killed_beside_data_loading_processes(fork_server, toy_argv, assert_same, tmp_path):
    exact = ("--sampler", "exact", "--max-steps", "12")
    plain, path = tmp_path / "plain", tmp_path / "run"
    assert fork_server.run(SCRIPT, toy_argv(plain, *exact)).code == 0
    for n in (2, 1):
        ended = fork_server.run(
            SCRIPT,
            toy_argv(path, *exact, "--num-workers", "2"),
            point="renamed, before fsync of the directory",
            n=n,
        )
        assert ended.killed, ended.output
        assert ended.proof
    ended = fork_server.run(SCRIPT, toy_argv(path, *exact))  # at once: nobody holds the lock
    assert ended.code == 0, ended.output
    assert_same(path, plain)


def test_a_data_loading_process_is_killed(fork_server, toy_argv, assert_same, tmp_path):
    exact = ("--sampler", "exact", "--max-steps", "48")  # more than loaders draw ahead
    plain, path = tmp_path / "plain", tmp_path / "run"
    assert fork_server.run(SCRIPT, toy_argv(plain, *exact)).code == 0
    with_workers = toy_argv(path, *exact, "--num-workers", "2")
    ended = fork_server.run(SCRIPT, with_workers, point="a data-loading process dies", n=1)
    assert ended.proof
    assert_one_line(ended, "data-loading process", "the same command continues")
    assert read_status(path)["status"] == "failed"
    ended = fork_server.run(SCRIPT, with_workers)
    assert ended.code == 0, ended.output
    assert_same(path, plain)


def test_the_wall_clock_jumps(fork_server, toy_argv, undisturbed, assert_same, tmp_path):
    path = tmp_path / "run"
    ended = fork_server.run(SCRIPT, toy_argv(path), point="the clock jumps back", n=3)
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])
    rows = read_progress(path / "logs" / "progress.txt")
    elapsed = [row["elapsed"] for row in rows if "elapsed" in row]
    assert elapsed == sorted(elapsed)
    assert min(elapsed) >= 0


def test_read_only_directory(fork_server, toy_argv, undisturbed, assert_same, small_disk):
    folder, enlarge, lock = small_disk
    path = folder / "run"
    assert enlarge() == 0
    ended = fork_server.run(SCRIPT, toy_argv(path), point="row appended", n=5)
    assert ended.killed
    assert lock() == 0
    before = snapshot(path)
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert_one_line(ended, str(path), "Read-only file system")
    assert snapshot(path) == before
    assert enlarge() == 0
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(
    fork_server, toy_argv, undisturbed, assert_same, tmp_path
):
    path = tmp_path / "run"
    ended = fork_server.run(SCRIPT, toy_argv(path), point="row appended", n=12)
    assert ended.killed
    newest = list_checkpoints(path / LATEST)[-1][1]
    content = (newest / "weights.pt").read_bytes()
    (newest / "weights.pt").write_bytes(content[:-100])
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert f"ignored {newest / 'weights.pt'}" in ended.output
    assert_same(path, undisturbed[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def snapshot(folder: Path) -> dict:
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_killed_sweep_leaves_no_writer_behind(fork_server, assert_same, tmp_path):
    config = tmp_path / "toy.py"
    config.write_text(
        "def get_config():\n"
        "    return {\n"
        "        'data': {'example_type': 'symbolic', 'symbolic_config': {'dataset_size': 1623}},\n"
        "        'embedding': {'example_encoding': 'embedding', 'emb_dim': 16},\n"
        "        'transformer': {'num_layers': 1, 'num_heads': 2, 'dropout_prob': 0.1},\n"
        "        'optimizer': {'name': 'adamw', 'warmup_steps': 5},\n"
        "        'training': {'batch_size': 4, 'log_interval': 5, 'eval_interval': 20,\n"
        "                     'save_interval': 10},\n"
        "        'evaluation': {'batches': 1, 'batch_size': 4},\n"
        "    }\n"
    )

    def argv(base: Path, jobs: int) -> list[str]:
        return [
            *f"--config_path {config} --base_output_dir {base} --class_counts 30".split(),
            *f"--weight_decays 0 0.1 --training_steps 60 --jobs {jobs}".split(),
            "--device",
            "cpu",
            "--no-track",
        ]

    base, plain = tmp_path / "sweep", tmp_path / "plain"
    names = ["class30_wd0", "class30_wd0p1"]
    script = "run_adamw_sweep_torch"
    started = [str(base / name / LATEST / "step_10") for name in names]
    ended = fork_server.run(script, argv(base, 2), kill_when=started)
    assert ended.killed, ended.output
    assert len(ended.family) >= 2
    deadline = time.monotonic() + 10
    while any(map(alive, ended.family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in ended.family if alive(pid)], "a worker outlived its parent"
    before = snapshot(base)
    time.sleep(0.3)
    assert snapshot(base) == before
    assert {read_status(base / name)["status"] for name in names} <= {"running", "new"}
    assert fork_server.run(script, argv(plain, 1)).code == 0
    ended = fork_server.run(script, argv(base, 1))  # in one process: no number depends on it
    assert ended.code == 0, ended.output
    for name in names:
        assert_same(base / name, plain / name)
    assert (base / "runs.csv").read_text() == (plain / "runs.csv").read_text()


@pytest.fixture
def small_disk(tmp_path, undisturbed):
    """A file system that holds one checkpoint, but not two, until it is enlarged."""
    size = sum(p.stat().st_size for p in undisturbed[0].rglob("*") if p.is_file())
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if os.geteuid() != 0 or shutil.which("mount") is None or mount(f"size={int(0.8 * size)}") != 0:
        pytest.skip("needs root and mount for a small tmpfs")
    yield folder, lambda: mount("remount,rw,size=64m"), lambda: mount("remount,ro")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_one_line(ended, name: str, reason: str) -> None:
    lines = [part for line in ended.output.splitlines() for part in line.split("\r")]
    said = [line for line in lines if line.strip() and "step/s" not in line and "?step" not in line]
    assert ended.code == 1, ended.output
    assert len(said) == 1, ended.output
    assert said[0].startswith("error: ")
    assert name in said[0]
    assert reason in said[0]


def test_full_disk(fork_server, toy_argv, undisturbed, assert_same, small_disk):
    folder, enlarge, _ = small_disk
    path = folder / "run"
    for _ in range(2):
        ended = fork_server.run(SCRIPT, toy_argv(path))
        assert_one_line(ended, str(path), "No space left on device")
    checkpoint, ignored = latest_checkpoint(path / LATEST)
    assert checkpoint is not None
    assert not ignored
    assert enlarge() == 0
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])


def test_file_size_limit(fork_server, toy_argv, undisturbed, assert_same, tmp_path):
    path = tmp_path / "run"
    limit = (undisturbed[0] / "logs" / "metrics.jsonl").stat().st_size // 2
    ended = fork_server.run(SCRIPT, toy_argv(path), max_file_bytes=limit)
    assert_one_line(ended, "weights.pt", "File too large")
    assert latest_checkpoint(path / LATEST) == (None, [])
    ended = fork_server.run(SCRIPT, toy_argv(path))
    assert ended.code == 0, ended.output
    assert_same(path, undisturbed[0])

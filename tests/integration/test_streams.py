"""Commands whose output nobody reads, or whose terminal is closed: they do their work."""

from __future__ import annotations

import importlib
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from trainrig.cli import entry
from trainrig.runs import read_status

#: A command of each kind: words, a view of runs, a table, a training, a sweep of two processes.
COMMANDS = {
    "help": "scripts/run_deepobs.py --help",
    "data": "-m trainrig.command data list",
    "watch": "scripts/watch.py {runs}",
    "print config": "scripts/run_experiment.py --print-config --device cpu",
    "train": "scripts/run_deepobs.py quadratic_deep --lr 0.01 -N 1 --threads 1 --output_dir {out}",
    "tune": "scripts/tune_deepobs.py quadratic_deep --grid lr=0.01,0.02 -N 1 --jobs 2 --threads 1"
    " --output_dir {out}",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    (folder / "logs").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "environment.json").write_text("{}")
    (folder / "logs/metrics.jsonl").write_text("")
    (folder / "status.json").write_text('{"status": "complete", "step": 3}')
    return folder.parent


def shell(command, redirection, repo_root):
    line = f"{sys.executable} {command} {redirection}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=repo_root, capture_output=True, text=True
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"])
@pytest.mark.parametrize("command", ["help", "data", "watch", "print config"])
def test_output_that_nobody_reads_is_dropped(
    command, redirection, unbuffered, repo_root, tmp_path, runs, monkeypatch
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    words = COMMANDS[command].format(runs=runs, out=tmp_path)
    ended = shell(words, redirection, repo_root)
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stderr
    assert "error" not in ended.stderr


def test_a_full_disk_below_standard_output_is_named(repo_root):
    ended = shell("-m trainrig.command data list", ">/dev/full", repo_root)
    assert ended.returncode == 1
    assert ended.stderr == "error: standard output: No space left on device\n"


def test_a_full_disk_below_standard_error_ends_no_work(repo_root):
    code = "from trainrig.streams import outlive_readers; outlive_readers(); import sys; "
    code += "print('a warning', file=sys.stderr, flush=True); print('done')"
    ended = shell(f'-c "{code}"', "2>/dev/full", repo_root)
    assert (ended.returncode, ended.stdout) == (0, "done\n")


@pytest.mark.parametrize(("command", "count"), [("train", 1), ("tune", 2)])
@pytest.mark.parametrize("redirection", [">&- 2>&-", "2>&1 | true"])
def test_a_training_that_nobody_reads_ends_well(command, count, redirection, repo_root, tmp_path):
    ended = shell(COMMANDS[command].format(out=tmp_path), redirection, repo_root)
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.rglob("random_seed__*.json"))) == count


def test_a_mistake_keeps_its_exit_status_without_output(repo_root):
    assert shell("scripts/watch.py /nowhere", ">&- 2>&-", repo_root).returncode == 1
    assert shell("scripts/watch.py --nothing", "| true", repo_root).returncode == 2


def test_every_script_has_the_entry(repo_root):
    for folder in ("analysis", "scripts"):
        for path in sorted((repo_root / folder).glob("*.py")):
            main = importlib.import_module(path.stem).main
            assert main.__code__ is entry(lambda _: 0).__code__, path


def test_a_closed_terminal_ends_a_run_with_its_checkpoint(repo_root, tmp_path):
    """The terminal goes: the run gets SIGHUP, and what it prints meets EIO."""
    leader, follower = pty.openpty()
    words = f"""
        scripts/run_experiment.py --dataset synthetic --num-epochs 2000 --no-track
        --config configs/optimizer_quality/base_config.yaml --device cpu --threads 1
        --set model=resnet8_6n2 --set batch_size=100 --set train_items=300
        --set results_dir={tmp_path} --set log_dir={tmp_path}/logs
    """
    process = subprocess.Popen(
        [sys.executable, *words.split()],
        cwd=repo_root,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(follower)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.2)
    time.sleep(1)
    os.close(leader)
    assert process.wait(60) == 128 + signal.SIGHUP
    (status,) = tmp_path.rglob("status.json")
    assert read_status(status.parent)["status"] == "interrupted"
    assert list(status.parent.rglob("manifest.json"))


def test_nohup_is_respected(repo_root, tmp_path):
    program = (
        "import os, signal, time; from trainrig.stopping import graceful_stop\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with graceful_stop() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    time.sleep(.1)\n"
        "    assert not stop.due()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(.1)\n"
        "    assert stop.exit_code == 143\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

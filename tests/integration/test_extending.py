"""The examples of docs/extending.md, written into a copy of the code and run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from page_commands import commands

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
#: (New file | Add to, path, code)
BLOCKS = re.findall(r"^(New file|Add to) `([^`]+)`[^\n]*:\n\n```\w+\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = [command for command in commands(PAGE) if command.startswith("python ")]


@pytest.fixture(scope="module")
def extended(repo_root, tmp_path_factory):
    """A copy of the repository's code with every example in it."""
    copy = tmp_path_factory.mktemp("extended")
    for name in ("analysis", "configs", "scripts", "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(repo_root / name, copy / name, ignore=ignored)
    for what, path, code in BLOCKS:
        file = copy / path
        assert file.exists() == (what == "Add to"), path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(f"\n\n{code}" if what == "Add to" else code)
    return copy


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python, *words = shlex.split(command)
    assert python == "python"
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def output_dir(command: str) -> str:
    return re.search(r"--output-dir (\S+)", command)[1]


def test_the_page_has_an_example_of_everything():
    assert [output_dir(c).split("/")[-1] for c in COMMANDS] == [
        "sign",
        "stripes",
        "bag",
        "confidence",
        "problem",
        "line",
    ]
    assert len(BLOCKS) == 2 * 5 + 5


@pytest.mark.parametrize("command", COMMANDS, ids=output_dir)
def test_examples_run_as_written(command, extended):
    ended = run(command, extended)
    assert ended.returncode == 0, ended.stderr
    path = extended / output_dir(command)
    if path.name == "problem":
        (result,) = path.glob("absolute_deep/Adam/*/random_seed__42__*.json")
        losses = json.loads(result.read_text())["test_losses"]
        assert losses[2] < losses[1] < losses[0]
        return
    assert json.loads((path / "status.json").read_text())["status"] == "complete"
    config = json.loads((path / "config.json").read_text())
    rows = [json.loads(line) for line in (path / "logs" / "metrics.jsonl").read_text().splitlines()]
    holdout = [row for row in rows if row.get("split") == "holdout"]
    if path.name == "stripes":
        assert config["images"]["image_source"] == "stripes"
    if path.name == "line":
        assert rows[-1]["loss"] < 1e-3 < rows[0]["loss"]
    else:
        assert [("confidence" in row) for row in holdout] == [True] * len(holdout) != []


def test_new_files_are_in_the_house_style(extended, repo_root):
    ruff = shutil.which("ruff") or Path(sys.executable).parent / "ruff"
    if not Path(ruff).exists():
        pytest.skip("needs ruff (the extra `dev`)")
    files = [path for what, path, _ in BLOCKS if what == "New file" and path.endswith(".py")]
    settings = ["--config", str(repo_root / "pyproject.toml")]
    for words in (["check", *settings], ["format", "--check", *settings]):
        done = subprocess.run(
            [ruff, *words, "--no-cache", *files], cwd=extended, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def start_line(extended, folder, **settings):
    """Start the example's script on a configuration of its own; yield once it has logged."""
    config = extended / f"{folder}.yaml"
    lines = {"optimizer": "sgd", "lr": 0.01, "steps": 6000, **settings}
    config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    words = ["scripts/train_line.py", "--config", str(config), "--output-dir", f"runs/{folder}"]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=extended,
        env={**os.environ, "PYTHONPATH": str(extended / "src"), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(log: Path, process: subprocess.Popen[str], rows: int) -> None:
    until = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < rows:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def newest_weights(folder: Path) -> bytes:
    (path,) = (folder / "checkpoints" / "models" / "latest").glob("step_6000")
    return (path / "weights.pt").read_bytes()


def test_the_experiment_of_the_page_stops_resumes_and_ends_like_every_run(extended):
    whole = start_line(extended, "whole")
    assert whole.wait(120) == 0, whole.stderr.read()
    runs = extended / "runs"
    stopped = start_line(extended, "stopped")
    log = runs / "stopped" / "logs" / "metrics.jsonl"
    wait_for_rows(log, stopped, 30)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 143
    assert "the same command resumes" in stopped.stderr.read()
    status = json.loads((runs / "stopped" / "status.json").read_text())
    assert status["status"] == "interrupted"
    saved = (runs / "stopped" / "checkpoints" / "models" / "latest").iterdir()
    assert f"step_{status['step']}" in {path.name.removesuffix("_interim") for path in saved}

    killed = start_line(extended, "stopped")
    wait_for_rows(log, killed, log.read_bytes().count(b"\n") + 30)
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL
    assert start_line(extended, "stopped").wait(120) == 0
    assert newest_weights(runs / "stopped") == newest_weights(runs / "whole")
    assert log.read_bytes() == (runs / "whole" / "logs" / "metrics.jsonl").read_bytes()


def test_the_experiment_of_the_page_sees_a_divergence(extended):
    process = start_line(extended, "diverging", lr=1e30)
    process.wait(120)
    status = json.loads((extended / "runs" / "diverging" / "status.json").read_text())
    assert status["status"] == "diverged"
    assert "loss not finite" in status["message"]

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
COMMANDS = [c for c in commands(PAGE) if "runs/try/" in c or c == "trainrig data list"]
#: An entry point that the page tells its reader to write.
ENTRY = re.search(r"^```toml\n(\w+ = \"\w+\")\n```", TEXT, re.M)[1]


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
    installed = copy / "src" / "line-1.dist-info"  # what `pip install -e .` writes
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: line\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[trainrig.commands]\n{ENTRY}\n".replace('"', ""))
    return copy


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(command)
    words = {"python": [], "trainrig": ["-m", "trainrig.command"]}[program] + words
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def output_dir(command: str) -> str:
    found = re.search(r"--output-dir (\S+)", command)
    return found[1] if found else command


def test_the_page_has_an_example_of_everything():
    assert [output_dir(c).split("/")[-1] for c in COMMANDS] == [
        "sign",
        "trainrig data list",
        "icl",
        "cifar",
        "deepobs",
        "bag",
        "confidence",
        "problem",
        "line",
    ]
    assert len(BLOCKS) == 2 * 5 + 1


@pytest.mark.parametrize("command", COMMANDS, ids=output_dir)
def test_examples_run_as_written(command, extended):
    ended = run(command, extended)
    assert ended.returncode == 0, ended.stderr
    path = extended / output_dir(command)
    if command == "trainrig data list":
        assert re.search(r"^stripes +drawn +- ", ended.stdout, re.M)
        return
    if path.name in ("problem", "deepobs"):
        (result,) = path.glob("*/Adam/*/random_seed__42__*.json")
        losses = json.loads(result.read_text())["test_losses"]
        assert losses[2] < losses[1] < losses[0]
        return
    assert json.loads((path / "status.json").read_text())["status"] == "complete"
    config = json.loads((path / "config.json").read_text())
    if "dataset" in config:
        assert config["dataset"] == "stripes"
        return
    rows = [json.loads(line) for line in (path / "logs" / "metrics.jsonl").read_text().splitlines()]
    holdout = [row for row in rows if row.get("split") == "holdout"]
    if path.name == "icl":
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
    """Start the example's command."""
    flags = {"output-dir": f"runs/{folder}", "lr": 0.01, "steps": 6000, **settings}
    words = ["-m", "trainrig.command", "line"]
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
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


def test_the_experiment_of_the_page_is_known_to_every_command(extended):
    assert (
        "  line                 Fit a line by gradient descent" in run("trainrig", extended).stdout
    )
    helped = run("trainrig line --help", extended)
    assert helped.stdout.startswith("usage: trainrig line [-h]")
    for name, lr in (("one", 0.05), ("two", 0.02)):
        assert (
            run(f"trainrig line --lr {lr} --output-dir runs/known/{name}", extended).returncode == 0
        )
    between = run("trainrig config diff runs/known/one runs/known/two", extended)
    assert between.stdout == "lr: 0.05 -> 0.02\n"
    watched = run("trainrig watch runs/known", extended).stdout
    assert watched.count("complete") == 2
    assert run("trainrig report runs/known", extended).returncode == 0
    assert "0.05" in (extended / "runs/known/report.html").read_text()


def test_help_of_the_experiment_of_the_page_imports_no_torch(extended):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trainrig.command import main\n"
        "try: main(['line', '--help'])\nexcept SystemExit as stop: assert stop.code == 0"
    )
    done = run(f"python -c {shlex.quote(code)}", extended)
    assert done.returncode == 0, done.stderr
    assert "--steps" in done.stdout


def test_the_experiment_of_the_page_sees_a_divergence(extended):
    process = start_line(extended, "diverging", lr=1e30)
    process.wait(120)
    status = json.loads((extended / "runs" / "diverging" / "status.json").read_text())
    assert status["status"] == "diverged"
    assert "loss not finite" in status["message"]

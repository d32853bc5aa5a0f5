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


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python, *words = shlex.split(command)
    assert python == "python"
    process = start(words, folder)
    out, err = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


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


class Line:
    """The page's experiment in a folder of its own, long enough to be interrupted."""

    SETTINGS = "optimizer: sgd\nlr: 0.001\nsteps: 6000\nsave_interval: 6000\nsave_seconds: 0.05\n"

    def __init__(self, code: Path, folder: Path, settings: str = SETTINGS) -> None:
        self.code, self.path = code, folder / "run"
        folder.mkdir(exist_ok=True)
        config = folder / "line.yaml"
        config.write_text(settings)
        script = "scripts/train_line.py"
        self.words = [script, "--config", str(config), "--output-dir", str(self.path)]

    def end(self) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return run(shlex.join(["python", *self.words]), self.code)

    def signalled_after(self, pattern: str, number: int) -> int:
        """Send a signal as soon as a file of that pattern is there; return the exit status."""
        process = start(self.words, self.code)
        deadline = time.monotonic() + 120
        while not list(self.path.glob(pattern)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
        return process.returncode

    def checkpoints(self) -> set[str]:
        return {path.parent.name for path in self.path.rglob("manifest.json")}

    def status(self) -> dict[str, object]:
        return json.loads((self.path / "status.json").read_text())

    def content(self) -> list[bytes]:
        """What must be equal to the bit."""
        newest = "checkpoints/models/latest/step_6000/weights.pt"
        files = ("logs/metrics.jsonl", newest, "status.json")
        return [(self.path / name).read_bytes() for name in files]


@pytest.fixture(scope="module")
def whole_line(extended, tmp_path_factory):
    """What an undisturbed run leaves."""
    line = Line(extended, tmp_path_factory.mktemp("whole"))
    ended = line.end()
    assert ended.returncode == 0, ended.stderr
    return line.content()


ROWS, CHECKPOINT = "logs/metrics.jsonl", "checkpoints/models/latest/step_*_interim/manifest.json"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 85)]
)
def test_the_experiment_saves_when_it_is_asked_to_stop(
    extended, tmp_path, whole_line, number, code
):
    line = Line(
        extended, tmp_path, Line.SETTINGS.replace("save_seconds: 0.05", "save_seconds: 600")
    )
    assert line.signalled_after(ROWS, number) == code
    status = line.status()
    assert status["status"] == "interrupted"
    assert line.checkpoints() == {f"step_{status['step']}_interim"}
    assert line.end().returncode == 0
    assert line.content() == whole_line


def test_the_experiment_resumes_to_the_same_bits_after_kills(extended, tmp_path, whole_line):
    line, reached = Line(extended, tmp_path), [0]
    for _ in range(2):
        assert line.signalled_after(CHECKPOINT, signal.SIGKILL) == -signal.SIGKILL
        (name,) = line.checkpoints()  # by time: none is due by its number
        reached.append(int(name.split("_")[1]))
    assert 0 < reached[1] <= reached[2] < 6000
    assert line.end().returncode == 0
    assert line.content() == whole_line
    assert line.checkpoints() == {"step_6000"}
    assert "was" not in line.end().stderr  # a finished one is left alone
    assert line.content() == whole_line


def test_the_experiment_sees_a_divergence(extended, tmp_path):
    line = Line(extended, tmp_path, "lr: 10.0\nsteps: 200\nsave_interval: 200\n")
    for _ in range(2):  # a result: the second call leaves it alone
        ended = line.end()
        assert ended.returncode == 1
        assert "diverged at step" in ended.stderr
        assert "loss not finite between steps" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert line.status()["status"] == "diverged"


def test_the_experiment_refuses_another_configuration(extended, tmp_path):
    settings = "lr: 0.1\nsteps: 20\n"
    assert Line(extended, tmp_path, settings).end().returncode == 0
    ended = Line(extended, tmp_path, settings.replace("0.1", "0.2")).end()
    assert ended.returncode == 1
    assert "lr: 0.1 -> 0.2" in ended.stderr


def test_the_page_names_the_length_of_its_run():
    (code,) = (code for _, path, code in BLOCKS if path == "src/line_fit/experiment.py")
    body = code[code.index("def run(") :].splitlines()
    assert len(body) == 25


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

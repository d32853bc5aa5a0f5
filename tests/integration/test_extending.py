"""The examples of docs/extending.md, written into a copy of the code and run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
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

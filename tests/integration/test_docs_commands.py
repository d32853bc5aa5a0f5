"""Every command of README and docs: its script is there and takes the flags."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from trainrig import command as trainrig

ROOT = Path(__file__).parents[2]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if p.exists()]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def commands(page: Path) -> list[str]:
    """Return the commands in code blocks and between backticks, continuations joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    pieces = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    pieces += [piece.replace("\n", " ") for piece in re.findall(r"`([^`]+)`", prose)]
    pieces += re.findall(r"^    (\S.*)$", text, re.M)
    lines = [" ".join(line.split()) for piece in pieces for line in piece.splitlines()]
    lines = [line.removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]
    return sorted(
        {
            line
            for line in lines
            if re.match(r"(python|make) \S|trainrig (doctor|data|config)\b", line)
        }
    )


def made_by(page: Path) -> set[str]:
    """Return the files that a reader of the page makes."""
    return set(re.findall(r"^New file `([^`]+)`", page.read_text(encoding="utf-8"), re.M))


CASES = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), CASES, ids=[f"{page.name}: {command}" for page, command in CASES]
)
def test_the_command_can_be_typed(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        assert set(words) <= set(TARGETS)
        return
    if program == "trainrig":
        trainrig.make_parser().parse_args(words)
        return
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
        paths = [word for word in words[2:] if "/" in word]
        assert all((ROOT / path).exists() for path in paths)
        return
    script, *flags = words
    if script in made_by(page):
        return
    assert (ROOT / script).is_file()
    assert not [word for word in flags if word.startswith("/")], "a path of one machine"
    module = importlib.import_module(Path(script).stem)
    parse = module.make_parser().parse_args if hasattr(module, "make_parser") else module.parse_args
    arguments = parse(flags)
    for name in ("config", "config_path", "golden"):
        path = getattr(arguments, name, None)
        if path is not None and str(path) not in made_by(page):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_commands_are_found():
    assert len(CASES) > 10
    assert {page.name for page, _ in CASES} >= {"icl_sweep_onboarding.md", "extending.md"}

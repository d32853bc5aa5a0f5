"""``trainrig SYSTEM COMMAND`` is the script of the same task; both know the same commands."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainrig import command, commands

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"": commands, **command.groups()}
COMMANDS = [(system, name) for system, package in GROUPS.items() for name in package.COMMANDS]


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "trainrig.command", *words], capture_output=True, text=True, cwd=ROOT
    )


def test_every_system_has_its_word():
    assert set(GROUPS) == {"", "icl", "cifar", "deepobs", "ptycho"}


@pytest.mark.parametrize(("system", "name"), COMMANDS)
def test_every_command_is_a_module_with_its_help(system, name, capsys, monkeypatch):
    module = importlib.import_module(f"{GROUPS[system].__name__}.{name}")
    monkeypatch.setattr(sys, "argv", ["trainrig"])
    with pytest.raises(SystemExit) as ended:
        command.main([*system.split(), name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    words = " ".join(["trainrig", *system.split(), name])
    assert out.startswith(f"usage: {words} [-h]")
    assert module.__doc__.split("\n")[0] in out


def test_modules_of_commands_are_all_registered():
    for package in GROUPS.values():
        present = {p.stem for p in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
        assert present == set(package.COMMANDS)


@pytest.mark.parametrize("folder", ["analysis", "scripts"])
def test_scripts_are_thin(folder):
    for script in (ROOT / folder).glob("*.py"):
        assert len(script.read_text().splitlines()) <= 25, script


def test_nothing_and_help_print_the_overview():
    for words in ((), ("--help",)):
        done = run(*words)
        assert done.returncode == 0
        assert "icl sweep" in done.stdout
        assert "doctor" in done.stdout
    assert "simulate" in run("ptycho").stdout


def test_a_mistyped_command_is_answered_with_the_nearest():
    done = run("icl", "sweeep")
    assert done.returncode == 2
    assert done.stderr == "trainrig icl: unknown command 'sweeep'; did you mean 'sweep'?\n"
    for word, meant in (("dokter", "doctor"), ("ptyco", "ptycho"), ("reprot", "report")):
        done = run(word)
        assert done.returncode == 2
        assert done.stderr == f"trainrig: unknown command {word!r}; did you mean {meant!r}?\n"


#: What takes a word from a list: a command or a system.
WORDS = ["", *command.groups(), "data", "config", "verify", "prove"]


@pytest.mark.parametrize("before", WORDS)
def test_an_unknown_word_is_a_usage_error_everywhere(before, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trainrig"])
    with pytest.raises(SystemExit) as ended:
        command.main([*before.split(), "xyzzy"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'xyzzy'" in line
    assert line.startswith(f"trainrig {before}".strip())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("verify icll", "'icl'"),
        ("prove deepob", "'deepobs'"),
        ("data lst", "'list'"),
        ("config dif", "'diff'"),
        ("ptycho trian", "'train'"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(words, meant, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trainrig"])
    with pytest.raises(SystemExit) as ended:
        command.main(words.split())
    assert ended.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_a_sweep_in_two_processes_runs_by_its_command(tmp_path):
    done = run(
        *("icl", "sweep", "--preset", "quick", "--class_counts", "12", "--weight_decays", "0", "1"),
        *("--training_steps", "2", "--max_eval_batches", "1", "--device", "cpu", "--no-track"),
        *("--n_common_classes", "2", "--n_holdout_classes", "4", "--jobs", "2"),
        *("--source", "synthetic", "--base_output_dir", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs.csv").read_text().count(",complete,") == 2
    (environment, *_) = tmp_path.glob("*/environment.json")
    made_by = json.loads(environment.read_text())["command"]
    assert made_by[:5] == ["trainrig", "icl", "sweep", "--preset", "quick"]

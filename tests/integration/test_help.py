"""Every script answers --help at once, and everything imports without the optional packages."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainrig import commands
from trainrig.cli import Parser
from trainrig.commands import verify

ROOT = Path(__file__).resolve().parents[2]
FILES = (*ROOT.glob("analysis/*.py"), *ROOT.glob("scripts/*.py"))
FILES = (*FILES, *ROOT.glob("benchmarks/measure_*.py"))
FILES = (*FILES, ROOT / "src/pytorch_port/sanity_check.py")  # run by `python -m`
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in FILES)
HELP = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} was imported")

sys.meta_path.insert(0, NoTorch())
sys.argv = [{script!r}, "--help"]
import runpy
runpy.run_path({script!r}, run_name="__main__")
"""
COMMAND_HELP = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} was imported")

sys.meta_path.insert(0, NoTorch())
from trainrig.command import main
for words in sys.argv[1:]:
    try:
        status = main([*words.split(), "--help"])
    except SystemExit as ended:
        status = ended.code
    assert status == 0, words
"""
HEAVY = ("torch", "torchvision", "matplotlib", "trackio", "tensorflow", "scipy", "lightning")
OPTIONAL = (
    *("yaml", "matplotlib", "tqdm", "trackio", "ml_collections", "PIL", "torchvision"),
    *("tensorflow_datasets", "scipy", "lightning", "h5py", "pandas"),
)
IMPORTS = """
import importlib, json, pkgutil, sys

for name in {blocked!r}:
    sys.modules[name] = None  # as if it were not installed
failed = {{}}
for package in ("trainrig", "pytorch_port"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            failed[module.name] = str(error)
from pytorch_port.config.files import load_icl_config
load_icl_config("configs/icl/quick.py")
print(json.dumps(failed))
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy_and_spells_every_flag_both_ways(script):
    code = HELP.format(blocked=HEAVY, script=script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    flags = set(re.findall(r"(?<![\w-])--[a-z0-9][\w-]*", done.stdout))
    parser_flags = {flag for flag in flags if "-" in flag[2:] and not flag.startswith("--no-")}
    listed = done.stdout.partition("options:")[2]
    for flag in parser_flags:
        if re.search(rf"^\s+.*{re.escape(flag)}\b", listed, re.M):
            assert "--" + flag[2:].replace("-", "_") in flags, flag


def commands_of_trainrig():
    """Return the words of every command, its own subcommands and the lists of them."""
    found = ["", "doctor", "data", "data list", "data get", "data verify", "config", "config diff"]
    for system, package in {"": commands, **commands.groups()}.items():
        found += [system, *(f"{system} {name}".strip() for name in package.COMMANDS)]
    return [*dict.fromkeys(found), *(f"verify {name}" for name in verify.ports())]


def test_help_of_every_command_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_HELP.format(blocked=HEAVY), *commands_of_trainrig()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: trainrig") >= len(commands_of_trainrig()) >= 40


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "src/" not in script])
def test_every_flag_has_a_text(script, monkeypatch):
    class SeenError(Exception):
        pass

    def show(parser, *_):
        raise SeenError(parser)

    monkeypatch.setattr(Parser, "parse_args", show)
    with pytest.raises(SeenError) as seen:
        importlib.import_module(Path(script).stem).main([])
    flags = [action for action in seen.value.args[0]._actions if action.option_strings]
    assert [action.option_strings[0] for action in flags if not action.help] == []


def test_everything_imports_without_the_optional_packages():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(blocked=OPTIONAL)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}

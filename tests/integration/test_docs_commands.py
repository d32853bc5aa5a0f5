"""Every command of README and docs: its script is there and takes the flags, at toy size too.

They are run by ``test_docs_run.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from page_commands import NEEDS, PAGES, ROOT, TOY, commands, made_by, need, recipe, toy

from trainrig import command as trainrig
from trainrig import commands as core_commands
from trainrig.data.catalogue import get_data_set

#: Registered by the extending page, in a copy.
MADE_COMMANDS = ("line",)
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
CASES = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), CASES, ids=[f"{page.name}: {command}" for page, command in CASES]
)
def test_the_command_can_be_typed(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    for form in dict.fromkeys((command, toy(command))):
        program, *words = shlex.split(form)
        if program == "torchrun":
            program, words = "python", words[2:]  # after --nproc-per-node N
        if program == "make":
            assert [recipe(target) for target in words]
        if program == "trainrig":
            check_trainrig(words)
        if program == "python":
            check_python(words, made_by(page))


def check_trainrig(words):
    """Let the command that the words name read its flags."""
    first, *rest = words
    package = core_commands.groups().get(first)
    if first in core_commands.COMMANDS:
        package, rest = core_commands, words
    if package is None and first not in MADE_COMMANDS:
        trainrig.make_parser().parse_args(words)
    elif package and rest:
        assert rest[0] in package.COMMANDS
        module = importlib.import_module(f"{package.__name__}.{rest[0]}")
        module.make_parser().parse_args(rest[1:])


def check_python(words, made):
    """Let the script's own parser read the flags; files that nobody makes must be there."""
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
        paths = [word for word in words[2:] if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths)
        return
    script, *flags = words
    if script in made:
        return
    assert (ROOT / script).is_file()
    assert not [word for word in flags if word.startswith("/")], "a path of one machine"
    module = importlib.import_module(Path(script).stem)
    parse = module.make_parser().parse_args if hasattr(module, "make_parser") else module.parse_args
    arguments = parse(flags)
    for name in ("config", "config_path", "golden"):
        path = getattr(arguments, name, None)
        if path is not None and str(path) not in made:
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_commands_are_found_in_the_order_of_the_page(tmp_path):
    assert len(CASES) > 150
    page = tmp_path / "page.md"
    page.write_text(
        "Mention `python a.py\n--x` and `a.py`, ``python -m b``.\n\n"
        "```python\npython = 1\n```\n\n```bash\n$ cmp 1 2  # why\n# nothing\n"
        "python c.py \\\n    --y\ncat > d <<'END'\nmake e\nEND\n```\n\n"
        "```\npython f.py\nlog\n```\n\n    .venv/bin/make g\n    text\n\n"
        "`make g`, `python c.py --y`\n"
    )
    assert commands(page) == [
        *("python a.py --x", "cmp 1 2", "python c.py --y", "cat > d <<'END'\nmake e\nEND"),
        *("python f.py", "make g"),
    ]


@pytest.mark.parametrize("pattern", [*TOY, *NEEDS])
def test_every_entry_of_the_tables_is_about_some_command(pattern):
    statements = [command for _, command in CASES]
    statements += [line for target in TARGETS for line in recipe(target)]
    assert any(re.search(pattern, statement) for statement in statements)


def test_data_sets_that_are_needed_are_known():
    for one in NEEDS.values():
        assert [get_data_set(name).name for name in one.data_sets] == list(one.data_sets)
    assert need("trainrig data get mnist").data_sets == ("mnist",)
    assert need("trainrig doctor") is None

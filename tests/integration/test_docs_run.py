"""Every command of README and docs, run as it stands, at toy size, page by page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_commands import PAGES, ROOT, commands, need, recipe, toy

from trainrig.data.catalogue import get_data_set
from trainrig.data.locations import data_root

pytestmark = pytest.mark.slow

#: Pages whose commands run elsewhere, in a copy into which the page's own files are written.
ELSEWHERE = {"extending.md": "test_extending.py"}
CASES = [
    (page.relative_to(ROOT).as_posix(), command)
    for page in PAGES
    if page.name not in ELSEWHERE
    for command in commands(page)
]
LIMIT_S = 600


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """Return a function: page -> its working copy of the tracked files, made once."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]
    copies: dict[str, Path] = {}

    def get(page: str) -> Path:
        if page not in copies:
            copies[page] = tmp_path_factory.mktemp(page.replace("/", "_"))
            for file in files:
                (copies[page] / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copies[page] / file)
        return copies[page]

    return get


def is_here(name: str) -> bool:
    """Say whether a data set is at hand."""
    data_set = get_data_set(name)
    folder = data_set.locate(data_root(None))
    return folder is not None and not data_set.missing(folder)


def run(command: str, folder: Path) -> None:
    """Run one command as a reader would in an activated environment."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "TRAINRIG_DATA_DIR": str(data_root(None).absolute()),
        "TRAINRIG_CACHE_DIR": str(folder / "cache"),
        "TQDM_DISABLE": "1",
    }
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"


@pytest.mark.parametrize(("page", "command"), CASES, ids=lambda value: value)
def test_the_command_runs(page, command, copy_of):
    needed = need(command)
    if needed and not (needed.data_sets and all(map(is_here, needed.data_sets))):
        pytest.skip(needed.reason)
    make = re.fullmatch(r"make (\w+)", command)
    for statement in recipe(make[1]) if make else [command]:
        run(toy(statement), copy_of(page))

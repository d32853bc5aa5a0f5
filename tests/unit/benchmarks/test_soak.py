"""The soak counts what it should: kills, resumes, and every run that did not end as undisturbed."""

from __future__ import annotations

import sys
import textwrap

import pytest

from kills import Command, fingerprint, soak

SCRIPT = """
    import os, subprocess, sys, time
    from pathlib import Path

    def main(argv):
        folder, kind = Path(argv[0]), argv[1]
        folder.mkdir(exist_ok=True)
        log = folder / "metrics.jsonl"
        done = len(log.read_text().splitlines()) if log.exists() else 0
        if kind == "forgets" and done:
            done += 1
        if kind == "leaves a child":
            child = "import os, time; os.setsid(); time.sleep(2)"
            subprocess.Popen([sys.executable, "-S", "-c", child])
        for step in range(done, 12):
            time.sleep(0.01)
            with log.open("a") as file:
                file.write(f"{step}\\n")
        return 0
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    (tmp_path / "soaked_script.py").write_text(textwrap.dedent(SCRIPT))
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda kind: Command(kind, "soaked_script", lambda path: [path, kind])
    sys.modules.pop("soaked_script", None)


def tally(command, folder, kills):
    for tallies in soak([command], folder, seconds=0, kills=kills):
        found = tallies[command.name]
    return found


def test_exact_resumption_is_no_mismatch(command, tmp_path):
    found = tally(command("good"), tmp_path / "soak", 6)
    assert found.kills >= 6
    assert found.resumes >= 1
    assert (found.mismatches, found.leaked) == (0, 0)


def test_a_lost_row_is_a_mismatch(command, tmp_path):
    found = tally(command("forgets"), tmp_path / "soak", 6)
    assert found.mismatches >= 1
    assert found.differing[0] == "metrics.jsonl"
    assert list((tmp_path / "soak").glob("forgets_mismatch_*"))


def test_a_child_that_outlives_its_parent_is_a_leak(command, tmp_path, monkeypatch):
    monkeypatch.setattr("kills._ORPHAN_PATIENCE_S", 0.1)
    assert tally(command("leaves a child"), tmp_path / "soak", 1).leaked >= 1


def test_clocks_are_not_compared_but_values_are(tmp_path):
    for name, text in (("a", '{"elapsed": 1, "loss": 2}'), ("b", '{"elapsed": 9, "loss": 2}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    (tmp_path / "b" / "status.json").write_text('{"elapsed": 9, "loss": 3}')
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")

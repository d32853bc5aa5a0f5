"""The parity script: exit status, one-sentence errors, and a fast ``--help``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verify_parity

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "icl"


@pytest.fixture
def folder(tmp_path):
    for name in ("meta.json", "lr_schedule.npz"):
        shutil.copy(GOLDEN / name, tmp_path)
    return tmp_path


def test_passing_directory_exits_0(folder, capsys):
    assert verify_parity.main(["icl", "--golden", str(folder)]) == 0
    # What meta.json says of cases that this part of a recording lacks is unchecked.
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 5 unchecked"


def test_empty_directory_is_a_failure(folder, capsys):
    (folder / "lr_schedule.npz").unlink()
    assert verify_parity.main(["icl", "--golden", str(folder)]) == 1
    assert "nothing was checked" in capsys.readouterr().out


def test_broken_directories_are_one_line_and_status_1(tmp_path, capsys):
    assert verify_parity.main(["icl", "--golden", str(tmp_path / "absent")]) == 1
    assert verify_parity.main(["icl", "--golden", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "no such directory" in lines[0]
    assert "has no meta.json" in lines[1]


def test_help_does_not_import_torch(repo_root):
    code = (
        "import sys; sys.path.insert(0, 'scripts'); sys.argv = ['x', 'icl', '--help']\n"
        "import verify_parity\n"
        "try: verify_parity.main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--golden" in done.stdout

"""The command behind ``make prove``: exit status and lines on small recordings."""

from __future__ import annotations

import shutil

import numpy as np
import prove
import pytest

from trainrig.commands import verify


@pytest.fixture
def folder(repo_root, tmp_path):
    """Return a folder with a recording of one schedule, of the ICL system."""
    golden = tmp_path / "icl_golden"
    golden.mkdir()
    for name in ("meta.json", "lr_schedule.npz"):
        shutil.copy(repo_root / "tests" / "parity" / "golden" / "icl" / name, golden)
    return tmp_path


def run(folder, *options):
    return prove.main(
        ["icl", "--golden", str(folder), "--capability", "default", "--threads", "1", *options]
    )


def test_a_passing_proof_exits_0(folder, capsys):
    assert run(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"icl: {folder / 'icl_golden'}"
    # What the recording's meta.json says of cases that this part of it lacks is unchecked.
    assert lines[2].split()[:6] == ["icl", "default", "1", "1", "0", "5"]
    assert lines[-1].startswith("1 runs, 0 failed, ")


def test_a_failing_proof_exits_1_and_names_the_row(folder, capsys):
    path = folder / "icl_golden" / "lr_schedule.npz"
    with np.load(path) as archive:
        np.savez(path, **{key: archive[key] * 1.01 for key in archive.files})
    assert run(folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("FAIL")
    assert lines[3].startswith("icl, default, 1: ")
    assert lines[-1].startswith("1 runs, 1 failed, ")


def test_a_proof_that_crashes_exits_1_with_its_reason_in_one_line(folder, capsys):
    (folder / "icl_golden" / "meta.json").unlink()
    assert run(folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "crashed with exit status 1: error: " in lines[2]
    assert "meta.json" in lines[2]
    assert len(lines) == 4


def test_the_repository_has_recordings_of_every_system(monkeypatch):
    assert set(verify.ports()) == {"icl", "deepobs", "ptycho"}
    assert all(verify.find_golden(name).is_dir() for name in verify.ports())
    monkeypatch.setattr(verify, "PLACES", verify.PLACES[1:])  # as where no larger ones lie beside
    found = verify.find_golden("icl")
    assert found.relative_to(verify.ROOT).as_posix() == "tests/parity/golden/icl"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--golden", "absent"], "no recorded arrays of icl"),
        (["--capability", "avx9"], "--capability avx9: this machine has default"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, options, words):
    assert run(folder, *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line

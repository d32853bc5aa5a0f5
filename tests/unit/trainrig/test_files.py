"""Files that are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from trainrig import files
from trainrig.files import (
    read_json,
    remove_abandoned,
    scratch_folder,
    temporary_name,
    write_atomically,
    write_json,
)


def test_replaces_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failure_keeps_the_old_content_and_names_the_file(tmp_path, monkeypatch, function):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, function, fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    if function == "fsync":
        assert "a.txt" in str(caught.value)


def test_the_content_is_on_disk_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))
        )
    write_atomically(tmp_path / "a", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"b": [1, 0.1], "a": None})
    assert read_json(tmp_path / "a.json") == {"b": [1, 0.1], "a": None}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_bad_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


KILLED = """
import os, signal, sys
from pathlib import Path
from trainrig.files import {name}
with {name}(Path(sys.argv[1]){more}) as place:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("name", "more", "write"),
    [
        ("replacing", " / 'big.pt'", "place.write_bytes(b'half')"),
        ("scratch_folder", ", 'unpacked'", "(place / 'part').write_bytes(b'half')"),
    ],
)
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path, name, more, write):
    program = KILLED.format(name=name, more=more, write=write)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from trainrig.files import write_atomically;"
            "write_atomically(Path(sys.argv[1]) / 'other.txt', 'x')",
            str(tmp_path),
        ],
        check=True,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_what_somebody_is_writing_stays(tmp_path, dead_key):
    ours = temporary_name(tmp_path / "a.txt")
    ours.write_text("half")
    elsewhere = tmp_path / ".a.txt.0123456789ab-7-8-0.tmp"  # another host, a minute ago
    elsewhere.write_text("half")
    foreign = tmp_path / ".user.tmp"
    foreign.write_text("not ours")
    old = tmp_path / ".a.txt.0123456789ab-7-8-1.tmp"  # there, the day before yesterday
    old.write_text("half")
    long_ago = time.time() - 2 * files.ABANDONED_S
    os.utime(old, (long_ago, long_ago))
    place = dead_key.partition("-")[0]
    reused = tmp_path / f".a.txt.{place}-{os.getpid()}-1-0.tmp"  # this one's number, another start
    reused.write_text("half")
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours, elsewhere, foreign])


def test_temporary_names_of_long_names_fit_a_folder(tmp_path):
    path = tmp_path / ("é" * 120 + ".json")
    write_atomically(path, "x")
    assert path.read_text() == "x"


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a", fail)
    with scratch_folder(tmp_path) as scratch:
        (scratch / "x").write_text("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_fsync_of_folders_serves(tmp_path, monkeypatch, number):
    real = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_atomically(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"


def test_a_folder_that_breaks_is_named(tmp_path, monkeypatch):
    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match=str(tmp_path)):
        write_atomically(tmp_path / "a.txt", "x")

"""Files that are replaced whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from trainrig import files
from trainrig.files import read_json, write_atomically, write_json


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

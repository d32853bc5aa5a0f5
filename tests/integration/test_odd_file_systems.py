"""All four systems on file systems without flock and without fsync of folders: as on any other."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from kills import fingerprint


@pytest.fixture
def odd(monkeypatch):
    """Return a function that lets locks and folders' fsync fail from then on."""
    fsync = os.fsync

    def refuse(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        def only_files(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            fsync(descriptor)

        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr(os, "fsync", only_files)

    return refuse


@pytest.mark.parametrize("system", ["icl", "optimizer_quality", "deepobs", "ptycho", "cifar_pack"])
def test_runs_end_as_elsewhere(system, commands, call_script, odd, tmp_path):
    script, argv = commands[system]
    assert call_script(script, argv(tmp_path / "usual")).code == 0
    odd({"icl": errno.ENOLCK, "deepobs": errno.EOPNOTSUPP}.get(system, errno.ENOSYS))
    ended = call_script(script, argv(tmp_path / "odd"))
    assert ended.code == 0, ended.err
    assert not list((tmp_path / "odd").rglob("*.held"))
    assert fingerprint(tmp_path / "odd") == fingerprint(tmp_path / "usual")

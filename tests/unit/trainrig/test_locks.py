"""Locks with flock and without: one holder at a time, and none that is dead."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from trainrig import locks
from trainrig.locks import Held, lock
from trainrig.runs import locked

WITHOUT = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
HOLD = """
import errno, fcntl, sys, time
from pathlib import Path
def without(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = without
from trainrig.locks import lock
with lock(Path(sys.argv[1]), owner="the other"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=[None, *WITHOUT], ids=lambda number: errno.errorcode.get(number, "flock"))
def system(request, monkeypatch):
    """A file system that knows flock, or answers it with an error."""
    if request.param is not None:

        def flock(*_):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(locks.fcntl, "flock", flock)


@pytest.mark.usefixtures("system")
def test_one_holder_at_a_time(tmp_path):
    file = tmp_path / ".lock"
    with lock(file, owner="me"), pytest.raises(Held, match="me"), lock(file):
        pass
    with lock(file):
        assert file.read_text() == "me"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("system")
def test_a_run_is_refused_to_a_second_writer(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match=rf"another process \(pid {os.getpid()} on "),
        locked(tmp_path),
    ):
        pass


@pytest.fixture
def without_flock(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


@pytest.mark.usefixtures("without_flock")
def test_the_lock_of_a_killed_process_counts_no_longer(tmp_path):
    file = tmp_path / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Held, match="the other"), lock(file):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with lock(file):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("without_flock")
def test_a_holder_that_cannot_be_seen_is_named_with_the_remedy(tmp_path):
    theirs = tmp_path / ".lock.0123456789ab-7-8-0.held"
    theirs.touch()
    with pytest.raises(Held, match=f"remove {theirs}"), lock(tmp_path / ".lock"):
        pass
    old = time.time() - 2 * locks.PATIENCE_S
    os.utime(theirs, (old, old))
    with lock(tmp_path / ".lock", wait=True):
        assert not theirs.exists()


def count(folder):
    file = folder / "count"
    for _ in range(20):
        with lock(folder / ".lock", wait=True):
            file.write_text(str(int(file.read_text()) + 1))


@pytest.mark.usefixtures("without_flock")
def test_who_waits_loses_nothing(tmp_path):
    (tmp_path / "count").write_text("0")
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=count, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "count").read_text() == "80"


def test_another_error_of_the_file_system_names_the_file(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"\.lock"), lock(tmp_path / ".lock"):
        pass

"""Work for the sweep's worker processes, importable there by file name; a process that ended."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.fixture(scope="session")
def sweep_work(tmp_path_factory):
    """A module of task functions that worker processes can import."""
    folder = tmp_path_factory.mktemp("sweep_work")
    (folder / "sweep_work_for_tests.py").write_text(
        textwrap.dedent(
            """
            import os, signal, time
            from trainrig.errors import CheckpointError
            from trainrig.stopping import graceful_stop

            def good(position, path, **_):
                path.write_text(f"{position} {os.getpid()}")
                return "complete"

            def diverges(position, **_):
                return "diverged"

            def refuses(position, **_):
                raise CheckpointError("two\\nlines")

            def breaks(position, **_):
                raise ZeroDivisionError("a bug")

            def dies(position, **_):
                os.kill(os.getpid(), signal.SIGKILL)

            def stops(position, path, **_):
                with graceful_stop() as stop:
                    path.write_text("begun")
                    while not stop.due():
                        time.sleep(0.02)
                    path.write_text("saved")
                    raise stop.interruption("here")

            def waits(position, path, **_):
                while True:
                    with path.open("a") as file:
                        file.write(f"{os.getpid()}\\n")
                    time.sleep(0.02)
            """
        )
    )
    sys.path.insert(0, str(folder))
    import sweep_work_for_tests

    yield sweep_work_for_tests
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def dead_key():
    """The key of a process that is no longer at work."""
    program = "from trainrig.processes import process_key; print(process_key())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stdout.strip()

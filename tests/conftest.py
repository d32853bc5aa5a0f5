"""Settings that every test shares."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
for folder in ("analysis", "scripts", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # one, unless somebody asks for more
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup, which runs respect
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from one seed and give the generators back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets; tests that need them skip without ``TRAINRIG_DATA_DIR``."""
    root = os.environ.get("TRAINRIG_DATA_DIR")
    if not root or not Path(root).is_dir():
        pytest.skip("needs real data: set TRAINRIG_DATA_DIR to a folder of data sets")
    return Path(root)


@pytest.fixture(scope="session")
def in_team():
    """Return a function: work, folder -> run ``work(folder)`` in two processes of a team."""
    fork = multiprocessing.get_context("fork")

    def run(work, folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("localhost", 0))
            port = one.getsockname()[1]
        team = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}

        def begin(rank: int) -> None:
            os.environ.update(team, RANK=str(rank), LOCAL_RANK=str(rank))
            work(folder)
            torch.distributed.destroy_process_group()

        processes = [fork.Process(target=begin, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0, 0]

    return run

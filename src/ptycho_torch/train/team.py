"""The processes of a training: those that ``torchrun`` started, or followers started here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from trainrig.distributed import Team, join_team
from trainrig.processes import process_count


@contextlib.contextmanager
def team_of(devices: int, follow: Callable[..., None], *arguments: Any) -> Iterator[Team | None]:
    """Lead a training in ``devices`` processes; None where this one is alone.

    Args:
        devices: how many; those of ``torchrun`` are there already.
        follow: what another process does, in a team that it has joined; importable by name.
        arguments: of ``follow``; they are pickled.
    """
    if process_count() > 1 or devices == 1:
        yield join_team()
        return
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    address["WORLD_SIZE"] = str(devices)
    before, threads = dict(os.environ), torch.get_num_threads()
    rest = (threads, address, follow, arguments)
    context = multiprocessing.get_context("spawn")
    followers = [
        context.Process(target=_begin, args=(rank, *rest), daemon=True)
        for rank in range(1, devices)
    ]
    for follower in followers:
        follower.start()
    try:
        os.environ.update(address, RANK="0", LOCAL_RANK="0")
        yield join_team()
        for follower in followers:
            follower.join()
    finally:
        for follower in followers:
            follower.terminate()
        if dist.is_initialized():
            dist.destroy_process_group()
        for name in (*address, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _begin(
    rank: int,
    threads: int,
    address: dict[str, str],
    follow: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Join the team as process ``rank`` and follow."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends this process
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank))
    follow(*arguments)

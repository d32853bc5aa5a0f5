"""Several runs in one process that take turns, a step each, every one on a stream of its own.

A run is a generator that yields the name of its engine after each step. On CUDA the steps of
several graphs overlap on the device, and each run keeps the kernels, and so the bits, that it has
alone; runs may be of any model, differ in length and end when they like. Random states belong to
the run whose turn it is.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import torch

from trainrig.seeding import OwnRandomness
from trainrig.stopping import Interruption, shared_stop

Result = TypeVar("Result")
#: Yields its engine after each step, returns the run's result.
Steps = Generator[str, None, Result]
#: Makes the random states those of the run that calls it.
Own = Callable[[], None]
#: Share of the free memory that a further run may take.
MEMORY_SHARE = 0.8


def finish(steps: Steps[Result]) -> Result:
    """Take all steps of one run; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


class _Seat:
    """A run that has begun.

    Attributes:
        number: of the run.
        replays: whether its steps are replays, which touch no random state of the host.
    """

    def __init__(self, number: int, device: torch.device) -> None:
        self.number = number
        self.randomness = OwnRandomness(device)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.replays = False
        self.steps: Steps[Any]

    def advance(self) -> None:
        """Take one step."""
        if not self.replays:
            self.randomness.own()
        if self.stream is not None:
            torch.cuda.set_stream(self.stream)
        self.replays = next(self.steps) == "graph"


def take_turns(
    runs: Sequence[Callable[[Own], Steps[Result]]],
    device: torch.device,
    *,
    most: int | None = None,
    progress: Callable[[int], Any] = lambda _: None,
) -> list[Result | Exception]:
    """Train runs side by side; return each one's result, or what it failed with.

    Args:
        runs: functions that begin a run; they get what makes the random states the run's own, to
            be called before a step that replays a graph is followed by anything that needs them.
        device: of all runs.
        most: runs at a time. None: on CUDA as many as the memory holds, which the first one shows;
            elsewhere all.
        progress: called with the number of steps that were taken since the last call.

    Raises:
        Interruption: the process was asked to stop, and all runs did.
    """
    table = _Table(runs, device, most)
    before = torch.cuda.current_stream(device) if device.type == "cuda" else None
    try:
        with shared_stop():
            while table.seats or table.waiting:
                table.fill()
                progress(table.round())
    except BaseException as error:
        table.dismiss(error)
        raise
    finally:
        if before is not None:
            torch.cuda.set_stream(before)
    if table.interruption is not None:
        raise table.interruption
    return [table.results[number] for number in range(len(runs))]


class _Table:
    """The runs that have begun, those that wait, and how the others ended."""

    def __init__(
        self, runs: Sequence[Callable[[Own], Steps[Any]]], device: torch.device, most: int | None
    ) -> None:
        self.runs, self.device = runs, device
        self.most = len(runs) if most is None else most
        self.measured = most is None and device.type == "cuda"
        self.waiting = deque(range(len(runs)))
        self.seats: list[_Seat] = []
        self.results: dict[int, Any] = {}
        self.interruption: Interruption | None = None
        self.largest = 0  # bytes that a run took when it began

    def fill(self) -> None:
        """Let further runs begin while there is room."""
        while self.waiting and len(self.seats) < self.most and self._has_room():
            seat = _Seat(self.waiting.popleft(), self.device)
            seat.steps = self.runs[seat.number](seat.randomness.own)
            self.seats.append(seat)
            reserved = self._reserved()
            self._advance(seat)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # what runs share was made on one stream
            self.largest = max(self.largest, self._reserved() - reserved)

    def _has_room(self) -> bool:
        if not self.measured or not self.seats:
            return True
        return self.largest <= MEMORY_SHARE * torch.cuda.mem_get_info(self.device)[0]

    def _reserved(self) -> int:
        return torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else 0

    def round(self) -> int:
        """Let every run take a step; return how many did."""
        for seat in tuple(self.seats):
            self._advance(seat)
        return len(self.seats)

    def _advance(self, seat: _Seat) -> None:
        try:
            seat.advance()
            return
        except StopIteration as end:
            self.results[seat.number] = end.value
        except Interruption as asked:
            self.interruption = self.interruption or asked
            self.waiting.clear()
        except torch.OutOfMemoryError as error:
            self._make_room(seat, error)
        except Exception as error:  # the others continue
            self.results[seat.number] = error
        self.seats.remove(seat)

    def _make_room(self, seat: _Seat, error: Exception) -> None:
        """Let a run begin again, from its checkpoint, when another one has ended."""
        others = len(self.seats) - 1
        if not others:
            self.results[seat.number] = error
            return
        self.most, self.measured = others, False
        self.waiting.append(seat.number)
        del seat.steps
        gc.collect()
        torch.cuda.empty_cache()

    def dismiss(self, error: BaseException) -> None:
        """Let every run end as if it had met ``error`` itself."""
        for seat in self.seats:
            try:
                seat.steps.throw(error)
            except BaseException:  # each has written how it ended
                continue

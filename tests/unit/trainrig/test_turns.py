"""Runs that take turns in one process: each as if alone, whatever the others do."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from trainrig.seeding import set_seed
from trainrig.stopping import Interruption, graceful_stop
from trainrig.turns import finish, take_turns

CPU = torch.device("cpu")


def drawing(seed, count, own, log, engine="eager"):
    """A run that draws from the global generator at every step."""
    set_seed(seed)
    for _ in range(count):
        if engine == "graph":
            own()
        log.append(torch.rand(()).item())
        yield engine
    return seed


def alone(seed, count):
    log: list[float] = []
    assert finish(drawing(seed, count, lambda: None, log)) == seed
    return log


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("most", [None, 1, 2])
def test_each_run_draws_what_it_draws_alone(engine, most):
    lengths = {1: 5, 2: 3, 3: 7}
    logs: dict[int, list[float]] = {seed: [] for seed in lengths}

    def beginning(seed):
        return lambda own: drawing(seed, lengths[seed], own, logs[seed], engine)

    counted = []
    results = take_turns([beginning(s) for s in lengths], CPU, most=most, progress=counted.append)
    assert results == [1, 2, 3]
    assert logs == {seed: alone(seed, count) for seed, count in lengths.items()}


def test_a_run_that_fails_lets_the_others_go_on():
    def failing(own):
        yield "eager"
        raise ValueError("no images")

    log: list[float] = []
    results = take_turns([failing, lambda own: drawing(4, 3, own, log)], CPU)
    assert isinstance(results[0], ValueError)
    assert results[1] == 4
    assert log == alone(4, 3)


def test_a_run_without_memory_begins_again_when_another_has_ended():
    begun = []

    def large(own):
        begun.append("large")
        if len(begun) < 3:
            raise torch.OutOfMemoryError("out of memory")
        yield "eager"
        return "large"

    def small(own):
        begun.append("small")
        yield "eager"
        yield "eager"
        return "small"

    assert take_turns([small, large], CPU) == ["small", "large"]
    assert begun == ["small", "large", "large"]


def test_memory_that_does_not_hold_one_run_is_an_error():
    def large(own):
        raise torch.OutOfMemoryError("out of memory")
        yield "eager"

    (result,) = take_turns([large], CPU)
    assert isinstance(result, torch.OutOfMemoryError)


def test_a_signal_reaches_all_runs_and_none_begins_after_it():
    stopped, begun = [], []

    def run(number):
        def steps(own):
            begun.append(number)
            with graceful_stop() as stop:
                for step in range(10):
                    if number == 0 and step == 2:
                        os.kill(os.getpid(), signal.SIGTERM)
                    if stop.due():
                        stopped.append(number)
                        raise stop.interruption(f"run {number}")
                    yield "eager"

        return steps

    with pytest.raises(Interruption, match="SIGTERM") as caught:
        take_turns([run(0), run(1), run(2)], CPU, most=2)
    assert caught.value.exit_code == 143
    assert sorted(stopped) == begun == [0, 1]


def test_an_interrupt_from_the_keyboard_reaches_all_runs():
    ended = []

    def run(number):
        def steps(own):
            try:
                for step in range(10):
                    if number == 1 and step == 2:
                        raise KeyboardInterrupt
                    yield "eager"
            except KeyboardInterrupt:
                ended.append(number)
                raise

        return steps

    with pytest.raises(KeyboardInterrupt):
        take_turns([run(0), run(1), run(2)], CPU)
    assert sorted(ended) == [0, 1, 2]

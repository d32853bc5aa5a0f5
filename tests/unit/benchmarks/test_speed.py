"""Cases are timed in turn and compared in pairs; floors and files say what was measured."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import roofline
import timing
from roofline import Peaks, Work, count_work
from timing import Case, Options, describe_results, format_results, run_cases
from trainrig.plotting.speed import SCHEMA, draw_results, redraw
from trainrig.tracking.tables import read_table

CPU = torch.device("cpu")
PEAKS = Peaks({"fp32": 100.0}, 10.0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the loops advance, and fixed peaks."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])
    return now


def ticking(clock, seconds, calls=None, name=""):
    def loop(steps):
        clock[0] += steps * next(seconds)
        if calls is not None:
            calls.append((name, steps))

    return loop


def forever(*values):
    while True:
        yield from values


def test_rates_are_medians_of_pairs_taken_in_turn(clock):
    calls = []
    ours = ticking(clock, iter([1, 0.5, 0.5, 1.0, 0.25]), calls, "ours")  # two warm-ups
    theirs = ticking(clock, iter([1, 1.0, 4.0, 1.0]), calls, "theirs")
    case = Case(loop=ours, against={"theirs": theirs}, steps=7, runs=2, work=Work(50.0, 1.0))
    (result,) = run_cases({"a": lambda: case}, [], Options(device=CPU, repeats=3), PEAKS)
    assert calls == [("ours", 1), ("ours", 1), ("theirs", 1)] + 3 * [("ours", 7), ("theirs", 7)]
    assert result.rates == pytest.approx([4.0, 2.0, 8.0])
    assert result.rate == pytest.approx(4.0)
    assert result.ratios["theirs"] == pytest.approx(8.0)  # of 4, 8 and 8
    assert result.arithmetic_floor_s == pytest.approx(0.5)
    assert result.bytes_floor_s == pytest.approx(0.1)
    assert result.achieved == pytest.approx(0.5 * 4.0)


def test_cases_are_chosen_by_name_and_built_when_needed(clock):
    built = []

    def build(name):
        built.append(name)
        return Case(loop=ticking(clock, forever(1.0)))

    cases = {name: lambda name=name: build(name) for name in "abc"}
    results = list(run_cases(cases, ["c"], Options(device=CPU, steps=3), PEAKS))
    assert built == ["c"]
    assert [(r.name, r.steps, r.ratios) for r in results] == [("c", 3, {})]
    with pytest.raises(ValueError, match=r"--cases 'd': unknown; accepted: 'a', 'b', 'c'"):
        run_cases(cases, ["d"], Options(device=CPU), PEAKS)
    with pytest.raises(ValueError, match="--repeats 0"):
        run_cases(cases, [], Options(device=CPU, repeats=0), PEAKS)


def test_the_file_holds_everything_and_the_table_names_each_case(clock, tmp_path):
    case = Case(
        loop=ticking(clock, forever(0.5)),
        against={"x": ticking(clock, forever(1.0)), "y": ticking(clock, forever(0.25))},
        work=Work(50.0, 1.0),
        note="a remark",
    )
    options = Options(device=CPU, repeats=2)
    results = list(run_cases({"one": lambda: case}, [], options, PEAKS))
    table = format_results(results)
    assert "| one | 1 | 2 | 2.00 x x | 500, 100 | 100% |" in table
    assert "one: 0.50 x y" in table
    assert "one: a remark" in table
    document = json.loads(json.dumps(describe_results("toy", results, PEAKS, options)))
    assert document["results"][0]["against"] == {"x": [1.0, 1.0], "y": [4.0, 4.0]}
    assert document["clock"] == "CPU"
    assert document["environment"]["versions"]["torch"]
    assert document["hardware"]["cores"] >= 1
    draw_results(document["results"], tmp_path / "bars.png", title="a machine")
    rows = read_table(tmp_path / "bars.csv", SCHEMA)
    assert [(row["case"], row["against"], row["ratio"]) for row in rows] == [
        ("one", "x", 2.0),
        ("one", "y", 0.5),
    ]
    drawn = (tmp_path / "bars.png").read_bytes()
    (tmp_path / "bars.png").unlink()
    (tmp_path / "other.csv").write_text("case,runs\nthat is,no benchmark\n")
    assert redraw(tmp_path) == [tmp_path / "bars.png", tmp_path / "bars.pdf"]
    assert (tmp_path / "bars.png").read_bytes() == drawn
    with pytest.raises(ValueError, match="no results to draw"):
        draw_results([], tmp_path / "none.png", title="")


def test_work_counts_products_and_what_is_kept():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.ones(16, 8)
    work = count_work(lambda: layer(x).sum(), layer.parameters(), state_per_parameter=0)
    assert work.flops == 2 * (2 * 16 * 8 * 4)  # forward, and the weight's gradient
    assert work.bytes == 2 * x.nbytes + 6 * layer.weight.nbytes
    assert layer.weight.grad is None


def test_peaks_and_memory_are_measured():
    peaks = roofline.measure_peaks(CPU)
    assert peaks.bytes_per_s > 1e8
    assert peaks.flops["fp32"] > 1e8
    assert all(math.isfinite(rate) for rate in peaks.flops.values())
    with roofline.peak_memory(CPU) as peak:
        held = torch.ones(2**24)  # 64 MiB
    assert peak.bytes is None or peak.bytes > held.nbytes

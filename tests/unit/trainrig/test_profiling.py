"""What a profile adds up to, and that any optimizer's steps are counted."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from torch import nn

from trainrig import profiling
from trainrig.optim import make_optimizer
from trainrig.profiling import Span, group_of, mark_step, profiled, summarize

SPANS = [
    Span("aten::linear", 0, 100, 20),
    Span("aten::addmm", 10, 90, 80),  # inside the first
    Span("aten::gelu", 150, 200, 50),
    Span("aten::gelu", 180, 240, 60),  # overlaps, as on two streams
    Span("aten::copy_", 300, 310, 10),
]


def test_time_is_counted_once_and_gaps_are_those_between_outer_spans():
    summary = summarize(SPANS, device="cpu", steps=2, seconds=500e-6)
    assert summary.busy_ms == pytest.approx((100 + 90 + 10) / 1e3 / 2)
    assert summary.span_ms == pytest.approx(0.25)
    assert summary.idle == pytest.approx(1 - 200 / 500)
    assert summary.calls == 3 / 2
    assert summary.gap_us == pytest.approx((50 + 60) / 2)
    assert summary.groups == pytest.approx(
        {"matrix products": 0.05, "elementwise, sums": 0.055, "memory, indexing": 0.005}
    )
    assert summary.top[0] == ("aten::gelu", pytest.approx(0.055), 1.0)
    assert "idle share 60.0%" in summary.text()


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::_fused_adam_", "optimizer"),
        ("aten::mkldnn_convolution", "convolutions"),
        ("ampere_sgemm_128x64_nn", "matrix products"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "elementwise, sums"),
        ("aten::native_layer_norm_backward", "normalisation"),
        ("aten::_softmax", "attention, softmax"),
        ("Memcpy HtoD (Pinned -> Device)", "memory, indexing"),
        ("something unheard of", "other"),
    ],
)
def test_names_find_their_group(name, group):
    assert group_of(name) == group


def steps(count, optimizer="adamw"):
    layer = nn.Linear(4, 4)
    chosen = make_optimizer(optimizer, layer.parameters(), lr=0.1)
    for _ in range(count):
        chosen.zero_grad()
        layer(torch.ones(2, 4)).sum().backward()
        chosen.step()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])  # muon is two optimizers in one
def test_any_training_loop_is_recorded(optimizer, tmp_path, capsys):
    with profiled(tmp_path / "p"):
        steps(30, optimizer)
    out = capsys.readouterr().out
    assert out.startswith("10 steps on cpu: ")
    assert (tmp_path / "p" / "summary.txt").read_text().splitlines()[0] == out.splitlines()[0]
    trace = json.loads(gzip.decompress((tmp_path / "p" / "trace.json.gz").read_bytes()))
    assert any(e.get("name") == "aten::addmm" for e in trace["traceEvents"])
    steps(1)  # the hook is gone
    assert capsys.readouterr().out == ""


def test_a_short_run_says_that_nothing_was_recorded(tmp_path, capsys):
    with profiled(tmp_path / "p"):
        steps(5)
        mark_step("a graph")  # another source than the one that is counted
    assert "the run took 5 of 11 steps needed" in capsys.readouterr().out
    assert not (tmp_path / "p").exists()
    with profiled(None):
        steps(1)
    assert capsys.readouterr().out == ""


def test_a_source_that_steps_alone_takes_the_place_of_a_trial(tmp_path):
    recorder = profiling._Recorder(tmp_path)
    trial, run, inner, outer = object(), object(), object(), object()
    for source in (*[trial] * 5, *[run] * 4):
        recorder.step(source)
    assert (recorder.counted, recorder.steps) == (run, 4)
    nested = profiling._Recorder(tmp_path)
    for _ in range(5):
        nested.step(inner)
        nested.step(outer)
    assert (nested.counted, nested.steps) == (inner, 5)

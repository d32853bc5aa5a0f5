"""scripts/benchmark.py measures a case of a system and writes what it found."""

from __future__ import annotations

import json


def test_a_case_is_measured_printed_and_written(call_script, repo_root, monkeypatch, tmp_path):
    monkeypatch.chdir(repo_root)
    output = tmp_path / "icl.json"
    words = ["icl", "--cases", "symbolic", "--repeats", "2", "--steps", "1", "--device", "cpu"]
    words += ["--output", str(output)]
    ended = call_script("benchmark", words)
    assert ended.code == 0, ended.err
    assert "| symbolic | 1 | " in ended.out
    (result,) = json.loads(output.read_text())["results"]
    assert len(result["rates"]) == len(result["against"]["reference-style"]) == 2
    assert min(result["rates"]) > 0
    assert 0 < result["bytes_floor_s"] < 1
    assert 0 < result["arithmetic_floor_s"] < 1


def test_an_unknown_case_is_refused_in_one_sentence(call_script, repo_root, monkeypatch):
    monkeypatch.chdir(repo_root)
    ended = call_script("benchmark", ["icl", "--cases", "symbolc", "--device", "cpu"])
    assert ended.code == 1
    assert "'symbolc': unknown; accepted: 'symbolic'" in ended.err

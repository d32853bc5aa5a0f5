"""``dashboard.py``: runs of any system in trackio and TensorBoard, read from their own logs."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from trainrig.dashboard import Mirror


def write_run(path, rows):
    (path / "logs").mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text('{"lr": 0.1}')
    (path / "environment.json").write_text("{}")
    (path / "logs/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(step, loss):
    return {"step": step, "split": "train", "loss": loss}


class Recorder:
    def __init__(self):
        self.shown = []

    def show(self, run, rows, *, replace):
        self.shown.append((run.name, [step for _, step in rows], replace))


def test_new_rows_are_added_and_a_run_that_was_cut_back_is_shown_anew(tmp_path):
    write_run(tmp_path / "a", [row(1, 3.0), row(2, 2.0)])
    mirror = Mirror(tmp_path, board := Recorder())
    assert mirror.update() == 1
    mirror.update()
    write_run(tmp_path / "a", [row(1, 3.0), row(2, 2.0), row(3, 1.0)])
    mirror.update()
    write_run(tmp_path / "a", [row(1, 3.0), row(2, 1.5)])
    mirror.update()
    assert board.shown == [("a", [1, 2], False), ("a", [3], False), ("a", [1, 2], True)]


def test_a_folder_without_rows_is_one_sentence(tmp_path, call_script):
    ended = call_script("dashboard", [str(tmp_path), "--once"])
    assert ended.code == 1
    assert ended.err == f"error: {tmp_path}: no run with a logged row in it yet\n"


@pytest.mark.parametrize("tracker", ["trackio", "tensorboard"])
def test_the_page_is_served_and_the_token_never_printed(tmp_path, tracker, repo_root, monkeypatch):
    pytest.importorskip(tracker)
    monkeypatch.setenv("no_proxy", "*")
    write_run(tmp_path / "runs/a", [row(1, 3.0), row(2, 2.0)])
    command = [sys.executable, "scripts/dashboard.py", str(tmp_path / "runs"), "--no-browser"]
    with subprocess.Popen(
        [*command, "--tracker", tracker, "--port", "0" if tracker == "tensorboard" else "7931"],
        cwd=repo_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as served:
        said = []
        for line in served.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        address = said[-1].split()[3]
        page = urllib.request.urlopen(address, timeout=30).read().decode()
        served.terminate()
        said.append(served.stdout.read())
    assert said[-2].startswith("1 run at http://")
    assert "<html" in page.lower()
    assert "token" not in "".join(said)

"""docs/file_formats.md names exactly the files and keys that a run writes."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
import torch

from pytorch_port.config.schema import IclConfig


@pytest.fixture(scope="module")
def documented(repo_root):
    """Heading of a subsection of "Run directory" ("" for its beginning) -> names in its table."""
    text = (repo_root / "docs" / "file_formats.md").read_text(encoding="utf-8")
    section = re.search(r"^## Run directory\n(.*?)^## ", text, re.M | re.S)[1]
    parts = re.split(r"^### (.+)$", section, flags=re.M)
    bodies = dict(zip(["", *parts[1::2]], parts[0::2], strict=True))
    return {
        heading: [
            name
            for cell in re.findall(r"^\| (`[^|]*`) \|", body, re.M)
            for name in re.findall(r"`([^`]+)`", cell)
        ]
        for heading, body in bodies.items()
    }


@pytest.fixture
def run(train, tmp_path):
    words = "--optimizer adamw --weight-decay 1e-3 --l2-mode sum_squares"
    assert train(tmp_path / "run", *words.split()).code == 0
    return tmp_path / "run"


def test_a_run_writes_what_is_documented(run, documented):
    present = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    steps = {re.sub(r"step_\d+", "step_{k}", name) for name in present}
    assert steps == set(documented[""])

    config = json.loads((run / "config.json").read_text())
    own = {field.name for field in fields(IclConfig)} - {"init"}
    assert set(config) == own | set(documented["config.json"]) - {"branch"}

    environment = json.loads((run / "environment.json").read_text())
    assert set(environment) == set(documented["environment.json"]) - {
        "batch_norm",  # a symbolic model has none
        "forced_changes",
        "lengthened",
    }

    status = json.loads((run / "status.json").read_text())
    assert set(status) == set(documented["status.json"]) - {"steps", "message"}

    rows = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert {name for row in rows for name in row} == set(documented["metrics.jsonl"])

    (newest,) = run.glob("checkpoints/models/latest/step_12")
    state = torch.load(newest / "state.pt", weights_only=True)
    sometimes = {"before_ending", "training_weights"}
    assert set(state) == set(documented["state.pt"]) - sometimes
    manifest = json.loads((newest / "manifest.json").read_text())
    assert set(manifest["files"]) == {"weights.pt", "state.pt"}


def test_a_diverged_run_says_why(train, tmp_path, documented):
    ended = train(tmp_path / "run", "--optimizer", "adamw", "--weight-decay", "1e39")
    assert ended.code == 1
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "diverged"
    assert set(status) == set(documented["status.json"]) - {"steps"}

"""Reconstructions in a report: a copy counts once, another refinement is another result."""

from __future__ import annotations

import json
import os

from ptycho_torch.study.describe import find_runs
from trainrig.report.records import each_once


def write(path, seed, refinement, age, epochs=2):
    (path / "logs").mkdir(parents=True)
    (path / "logs/metrics.csv").write_text("epoch,train_loss\n2,0.5\n")
    identity = {"experiment": "ptychography", "scan_sha256": "a", "execution": {"seed": seed}}
    (path / "config.json").write_text(json.dumps(identity))
    (path / "environment.json").write_text("{}")
    status = {"status": "complete", "epoch": epochs, "epochs": epochs, "refinement": refinement}
    (path / "status.json").write_text(json.dumps(status))
    os.utime(path / "status.json", (age, age))


def test_a_copied_member_counts_once_and_other_results_for_themselves(tmp_path):
    write(tmp_path / "seed_0", 0, {"epochs": 3}, 1)
    write(tmp_path / "seed_0_copy", 0, {"epochs": 3}, 2)
    write(tmp_path / "seed_0_refined", 0, {"epochs": 9}, 1)
    write(tmp_path / "seed_0_longer", 0, {"epochs": 3}, 1, epochs=4)
    write(tmp_path / "seed_1", 1, {"epochs": 3}, 1)
    runs = each_once(find_runs(tmp_path))
    assert {run.name: run.repeated for run in runs} == {
        "seed_0_copy": 1,
        "seed_0_refined": 0,
        "seed_0_longer": 0,
        "seed_1": 0,
    }

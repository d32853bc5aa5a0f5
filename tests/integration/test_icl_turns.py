"""ICL runs side by side in one process leave the bytes that each leaves alone."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from pytorch_port.config.files import load_icl_config
from pytorch_port.config.runtime import Runtime
from pytorch_port.sweep.carry_out import train_side_by_side
from pytorch_port.train.experiment import run
from trainrig.checkpoint import latest_checkpoint
from trainrig.config import apply_overrides
from trainrig.run_status import read_status
from trainrig.runs import LATEST

QUICK = {
    "training_steps": 6,
    "training.batch_size": 4,
    "training.log_interval": 2,
    "training.eval_interval": 3,
    "training.save_interval": 4,
    "evaluation.batches": 1,
    "evaluation.batch_size": 4,
    "transformer.num_layers": 1,
    "transformer.dropout_prob": 0.2,
}
RUNTIME = Runtime(device="cpu", tracker="none", show_progress=False)


@pytest.fixture
def configs(repo_root):
    base = apply_overrides(load_icl_config(repo_root / "configs/icl/symbolic.py"), QUICK)
    changes = ({"seed": 1}, {"seed": 2, "training_steps": 9}, {"seed": 3, "training_steps": 4})
    return [apply_overrides(base, change) for change in changes]


def left_by(path):
    """Return rows, weights, and what of the state has no clock."""
    checkpoint, _ = latest_checkpoint(path / LATEST)
    rng = checkpoint.state["rng"]
    return {
        "rows": (path / "logs/metrics.jsonl").read_bytes(),
        "weights": {name: value.numpy().tobytes() for name, value in checkpoint.weights.items()},
        "random": (rng["python"], rng["numpy"][1].tolist(), rng["torch"].tolist()),
        "config": (path / "config.json").read_bytes(),
    }


def test_runs_side_by_side_are_those_alone_bit_for_bit(configs, tmp_path):
    for number, config in enumerate(configs):
        run(config, RUNTIME, path=tmp_path / f"alone/{number}")
    members = [(config, tmp_path / f"turns/{n}") for n, config in enumerate(configs)]
    assert train_side_by_side(members, True, RUNTIME, None, 0) == "complete"
    for number in range(len(configs)):
        assert left_by(tmp_path / f"turns/{number}") == left_by(tmp_path / f"alone/{number}")


def test_a_run_goes_over_from_turns_to_being_alone_without_a_trace(configs, tmp_path):
    longer = dataclasses.replace(configs[0], training_steps=12)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    run(longer, RUNTIME, path=whole)
    members = [(configs[0], begun), (configs[1], tmp_path / "other")]
    train_side_by_side(members, True, RUNTIME, 2, 0)
    run(longer, RUNTIME, path=begun)
    assert left_by(begun)["weights"] == left_by(whole)["weights"]


def test_a_diverged_run_ends_and_the_others_go_on(configs, tmp_path):
    broken = apply_overrides(configs[0], {"optimizer.max_lr": 1e30, "optimizer.warmup_steps": 1})
    members = [(broken, tmp_path / "broken"), (configs[1], tmp_path / "whole")]
    assert train_side_by_side(members, True, RUNTIME, None, 0) == "diverged"
    assert read_status(tmp_path / "broken")["status"] == "diverged"
    assert read_status(tmp_path / "whole")["status"] == "complete"
    shutil.rmtree(tmp_path / "broken")
    run(configs[1], RUNTIME, path=tmp_path / "alone")
    assert left_by(tmp_path / "whole") == left_by(tmp_path / "alone")
    assert torch.initial_seed() == configs[1].seed

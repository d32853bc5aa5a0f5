"""One ICL run in two processes: equal to one process to rounding, and resumed bit by bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from pytorch_port.config.files import load_icl_config
from pytorch_port.config.runtime import Runtime
from pytorch_port.train.experiment import run
from trainrig.checkpoint import latest_checkpoint
from trainrig.config import apply_overrides
from trainrig.recorder import Recorder
from trainrig.runs import LATEST, read_status
from trainrig.stopping import Interruption

RUNTIME = Runtime(device="cpu", tracker="none", show_progress=False)


def config(**changes):
    toy = {
        "data.symbolic_config.dataset_size": 12,
        "data.generator_config.n_rare_classes": 6,
        "data.generator_config.n_common_classes": 2,
        "data.generator_config.n_holdout_classes": 4,
        "embedding.emb_dim": 16,
        "transformer.num_layers": 1,
        "transformer.num_heads": 2,
        "transformer.dropout_prob": 0.0,
        "optimizer.name": "sgd",  # Adam enlarges gradients that are only rounding
        "optimizer.max_lr": 0.1,
        "optimizer.warmup_steps": 2,
        "training.batch_size": 8,
        "training.save_interval": 4,
        "training.log_interval": 2,
        "training.eval_interval": 4,
        "evaluation.batches": 1,
        "evaluation.batch_size": 4,
        "training_steps": 8,
    }
    return apply_overrides(load_icl_config(Path("configs/icl/symbolic.py")), toy | changes)


def train(folder):
    result = run(config(), RUNTIME, path=folder)
    assert (result.path is None) == (os.environ.get("RANK") == "1")


def stop_after_three_steps(folder):
    due = Recorder.due

    def stopping(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return due(self, step)

    Recorder.due = stopping
    if os.environ["RANK"] == "0":
        with pytest.raises(Interruption):
            run(config(), RUNTIME, path=folder)
        assert read_status(folder)["status"] == "interrupted"
    else:
        run(config(), RUNTIME, path=folder)


def newest(folder):
    checkpoint, _ = latest_checkpoint(folder / LATEST)
    assert checkpoint.step == 8
    return torch.load(checkpoint.path / "weights.pt"), (folder / "logs/metrics.jsonl").read_bytes()


def test_two_processes_equal_one_and_resume_exactly(in_team, tmp_path, monkeypatch, repo_root):
    monkeypatch.chdir(repo_root)
    monkeypatch.delenv("TRAINRIG_FORCE_RESUME", raising=False)
    train(tmp_path / "alone")
    in_team(train, tmp_path / "together")
    in_team(stop_after_three_steps, tmp_path / "stopped")
    with pytest.raises(ValueError, match="processes: 2 -> 1"):
        run(config(), RUNTIME, path=tmp_path / "stopped")
    in_team(train, tmp_path / "stopped")
    in_team(train, tmp_path / "stopped")  # finished: nothing to do, and nobody waits
    (alone, _), (together, log) = (newest(tmp_path / name) for name in ("alone", "together"))
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-5, atol=1e-6)
    resumed, resumed_log = newest(tmp_path / "stopped")
    assert all(torch.equal(resumed[key], value) for key, value in together.items())
    assert resumed_log == log


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.batch_size": 7}, "batch size 7: not divisible among 2 processes"),
        ({"transformer.dropout_prob": 0.1}, "dropout 0.1: in one process only"),
        ({"training.engine": "compile"}, "--engine compile: in one process only"),
    ],
)
def test_what_would_depend_on_the_number_of_processes_is_refused(changes, said):
    from pytorch_port.train.experiment import for_team
    from trainrig.distributed import Team

    with pytest.raises(ValueError, match=said):
        for_team(config(**changes), Team(0, 2))

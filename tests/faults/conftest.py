"""Runs that are killed for real, and what must be equal afterwards."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trainrig.checkpoint import latest_checkpoint
from trainrig.runs import LATEST, read_status
from trainrig.tracking.metric_log import TIMING_KEYS
from trainrig.tracking.progress import read_progress


@dataclass
class Ended:
    """How a child ended: killed by SIGKILL, or with an exit code."""

    killed: bool
    code: int | None
    seconds: float
    family: list[int]
    output: str
    proof: str | None


class ForkServer:
    """Runs scripts in children of one process that has imported torch already."""

    def __init__(self, root: Path, scratch: Path) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{root / 'analysis'}",
            "TRAINRIG_CACHE_DIR": str(scratch / "cache"),
        }
        self.scratch, self.numbers = scratch, itertools.count()
        self.process = subprocess.Popen(
            [sys.executable, str(root / "tests" / "faults" / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=root,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, script: str, argv: list[str], **request) -> Ended:
        """Run ``script.main(argv)``; ``request`` arms a fault, see fork_server."""
        number = next(self.numbers)
        output, proof = self.scratch / f"{number}.out", self.scratch / f"{number}.proof"
        request |= {"script": script, "argv": argv, "output": str(output), "proof": str(proof)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        text = output.read_text(errors="replace")
        return Ended(**answer, output=text, proof=proof.read_text() if proof.exists() else None)

    def close(self) -> None:
        """End the server."""
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def fork_server(repo_root, tmp_path_factory):
    """One server for all tests: torch is imported once."""
    server = ForkServer(repo_root, tmp_path_factory.mktemp("fork_server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def toy_argv():
    """Return a function: run directory, extra flags -> a toy run of 24 steps with dropout."""

    def argv(path: Path, *more: str) -> list[str]:
        words = f"""
            --config configs/icl/symbolic.py --device cpu --no-track --output-dir {path}
            --num-layers 2 --num-heads 2 --n-rare 6 --n-common 2 --n-holdout 4
            --symbolic-dataset-size 12 --max-steps 24 --save-interval 4 --log-interval 3
            --eval-interval 6 --eval-batches 1 --eval-batch-size 4 --batch-size 4
            --optimizer adamw --weight-decay 0.01 --learning-rate 1e-2
            --set optimizer.warmup_steps=5 --set embedding.emb_dim=16
            --set transformer.dropout_prob=0.1
        """
        return [*words.split(), *more]

    return argv


def exact(value):
    """Return ``value`` with tensors as bytes, so that == compares every bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return [exact(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="session")
def run_facts():
    """Return a function: run directory -> everything that must not depend on interruptions."""

    def facts(path: Path) -> dict:
        checkpoint, ignored = latest_checkpoint(path / LATEST)
        assert not ignored
        state = dict(checkpoint.state)
        for clock in ("elapsed", "log_sizes"):  # the digits of the times change the sizes
            state.pop(clock)
        rows = read_progress(path / "logs" / "progress.txt")
        return {
            "step": checkpoint.step,
            "weights": (checkpoint.path / "weights.pt").read_bytes(),
            "state": exact(state),
            "metrics": (path / "logs" / "metrics.jsonl").read_bytes(),
            "progress": [[kv for kv in r.items() if kv[0] not in TIMING_KEYS] for r in rows],
            "timing": [[k for k in r if k in TIMING_KEYS] for r in rows],
            "status": read_status(path),
            "config": (path / "config.json").read_bytes(),
            "files": sorted(str(p.relative_to(path)) for p in path.rglob("*")),
        }

    return facts


@pytest.fixture(scope="session")
def assert_same(run_facts):
    """Return a function: two run directories must agree in every bit that is not the clock's."""

    def same(one: Path, two: Path) -> None:
        left, right = run_facts(one), run_facts(two)
        for key in left:
            assert left[key] == right[key], key

    return same

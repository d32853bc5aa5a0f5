"""Toy runs of the scripts, in this process, and what they leave on the disk."""

from __future__ import annotations

import hashlib
import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trainrig.launch.jobs import perform_job


@dataclass
class Ended:
    """Exit status and output of a script's main."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """Lines on stderr, progress bars aside."""
        lines = [part for line in self.err.split("\n") for part in line.split("\r")]
        return [line for line in lines if line.strip() and "step/s" not in line]


@pytest.fixture
def call_script(repo_root, monkeypatch, capfd):
    """Return a function: script name, arguments -> how its main ended."""
    monkeypatch.chdir(repo_root)
    monkeypatch.setenv("TQDM_DISABLE", "1")

    def call(script: str, argv: list[str]) -> Ended:
        capfd.readouterr()
        try:
            code = importlib.import_module(script).main([str(word) for word in argv])
        except SystemExit as error:
            code = error.code
        torch.use_deterministic_algorithms(False)
        return Ended(code, *capfd.readouterr())

    return call


@pytest.fixture
def train(call_script):
    """Return a function: run directory, extra flags -> a toy run of pytorch_train."""

    def run(path: Path, *more: str) -> Ended:
        words = f"""
            --config configs/icl/symbolic.py --device cpu --no-track --output-dir {path}
            --num-layers 2 --num-heads 2 --n-rare 6 --n-common 2 --n-holdout 4
            --symbolic-dataset-size 12 --max-steps 12 --save-interval 4 --log-interval 3
            --eval-interval 6 --eval-batches 1 --eval-batch-size 4 --batch-size 4
            --learning-rate 1e-2 --set optimizer.warmup_steps=5 --set embedding.emb_dim=16
        """
        return call_script("pytorch_train", [*words.split(), *more])

    return run


@pytest.fixture(scope="session")
def tree_hash():
    """Return a function: folder -> {file: SHA-256 of its bytes}, lock files aside."""

    def hashes(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return hashes


class Cluster:
    """A launcher engine that carries out pickled tasks at once, like a job on another machine."""

    def __init__(self):
        self.names, self.in_a_new_process = [], lambda: None

    def submit(self, tasks, folder, options):
        folder.begin(tasks)
        for task in pickle.loads(pickle.dumps(tasks)):
            self.names.append(task.name)
            self.in_a_new_process()
            perform_job(task, folder)
        folder.set_record("slurm", {name: name for name in self.names})

    def queued(self, folder, options):
        return set()

    def finish(self, folder, options):
        pass


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for every cluster: ``names`` are the tasks that it carried out."""
    made = Cluster()
    monkeypatch.setattr("trainrig.launch.launcher._engine", lambda name: made)
    return made

"""Toy runs of the scripts, in this process, and what they leave on the disk."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import pickle
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from deepobs.pytorch.runners.smoke import write_generated_data
from trainrig.launch.jobs import perform_job
from trainrig.stopping import StopRequest

DUE = StopRequest.due
ICL = """
    --config configs/icl/symbolic.py --device cpu --no-track --num-layers 1 --num-heads 2 --n-rare 6
    --n-common 2 --n-holdout 4 --symbolic-dataset-size 12 --max-steps 12 --save-interval 4
    --log-interval 3 --eval-interval 6 --eval-batches 1 --eval-batch-size 4 --batch-size 4
    --set embedding.emb_dim=16 --set transformer.dropout_prob=0.1
"""
CIFAR = """
    --config configs/optimizer_quality/base_config.yaml --dataset synthetic --num-epochs 2
    --no-track --quiet --set model=resnet8_6n2 --set batch_size=100 --set train_items=300
"""
DEEPOBS = "cifar10_3c3d --optimizer Adam --lr 1e-3 -N 2 --bs 20 --threads 1 --quiet"
PTYCHO = """
    --nepochs 2 --batch_size 4 --n_groups 16 --gridsize 1 --n_filters_scale 1 --accelerator cpu
    --no-do_stitching --quiet
"""

CIFAR_PACK = """
    --config configs/optimizer_quality/base_config.yaml --dataset synthetic --num-epochs 2 --pack 2
    --no-track --optimizers sgd=0.1,0.01 --seeds 0 --name packed --jobs 1
    --set model=resnet8_6n2 --set batch_size=100 --set train_items=300
"""
DEEPOBS_PACK = """
    mnist_mlp --optimizer Adam --grid lr=1e-3,1e-2 --seeds 1 -N 2 --bs 20 --pack 2 --jobs 1
    --threads 1
"""


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


@pytest.fixture
def signalled(monkeypatch):
    """Return a function: send a signal to this process before the n-th look at a request."""

    def arm(number: int | None, n: int) -> None:
        looks = itertools.count(1)

        def due(request):
            if number is not None and next(looks) == n:
                signal.raise_signal(number)
            return DUE(request)

        monkeypatch.setattr(StopRequest, "due", due)

    return arm


@pytest.fixture
def commands(tmp_path, toy_scan_file):
    """Script and arguments of each system, for an output folder."""
    data = tmp_path / "data"

    def deepobs(folder):
        if not data.exists():
            write_generated_data(data, examples=160)
        return [*DEEPOBS.split(), "--data_dir", data, "--output_dir", folder]

    def deepobs_pack(folder):
        if not data.exists():
            write_generated_data(data, examples=160)
        return [*DEEPOBS_PACK.split(), "--data_dir", data, "--output_dir", folder]

    def cifar(folder):
        places = f"--set results_dir={folder} --set log_dir={folder}/logs"
        return [*CIFAR.split(), *places.split()]

    def ptycho(folder):
        files = f"--train_data_file {toy_scan_file} --output_dir {folder}"
        return [*files.split(), *PTYCHO.split()]

    return {
        "icl": ("pytorch_train", lambda folder: [*ICL.split(), "--output-dir", folder]),
        "optimizer_quality": ("run_experiment", cifar),
        "deepobs": ("run_deepobs", deepobs),
        "ptycho": ("train_ptycho", ptycho),
        "cifar_pack": (
            "sweep_optimizers",
            lambda folder: [*CIFAR_PACK.split(), "--output-dir", folder],
        ),
        "deepobs_pack": ("tune_deepobs", deepobs_pack),
    }


@pytest.fixture(scope="module")
def toy_scan_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("scan") / "toy.npz"
    x, y = (40 + 5.0 * part.ravel() for part in np.meshgrid(np.arange(4), np.arange(4)))
    axis = np.arange(64) - 32
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 50).astype(np.complex64)
    frames = np.sqrt(rng.poisson(50, (16, 64, 64))).astype(np.float32)
    obj = np.exp(1j * rng.uniform(0, 1, (120, 120))).astype(np.complex64)
    np.savez(path, xcoords=x, ycoords=y, diff3d=frames, probeGuess=probe, objectGuess=obj)
    return path

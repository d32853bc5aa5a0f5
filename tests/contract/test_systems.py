"""Every optimizer in every system: it trains, is evaluated, and resumes bit for bit; or is refused.

``make test`` runs a chosen few, ``make full`` all; each outcome must be that of the table in
docs/optimizers.md, which ``table.py`` writes. A run is stopped by a request within its epoch, and
continued by the same call. A refusal is one sentence; anything else that is raised fails.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optimizers
import printed
import pytest
import torch
from table import ARGUMENTS, MARK, rows_of_page, shown
from torch.optim import Optimizer

from trainrig.optim import OPTIMIZERS, PRESETS, resolve_optimizer
from trainrig.stopping import Interruption, StopRequest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


class Stopped:
    """Asks every run of a test to stop after so many looks at the request; 0 never."""

    def __init__(self, monkeypatch):
        self.left = 0
        original = StopRequest.due

        def due(request: StopRequest) -> bool:
            if self.left:
                self.left -= 1
                if not self.left:
                    request.receive(signal.SIGTERM)
            return original(request)

        monkeypatch.setattr(StopRequest, "due", due)


@pytest.fixture
def stopped(monkeypatch):
    return Stopped(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A toy scan, and toy images for DeepOBS."""
    from deepobs.pytorch.datasets.generated import write_generated_data

    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder / "deepobs", examples=32)
    rng = np.random.default_rng(0)
    x, y = (40 + 5.0 * part.ravel() for part in np.meshgrid(np.arange(2), np.arange(4)))
    axis = np.arange(64) - 32
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 50).astype(np.complex64)
    frames = np.sqrt(rng.poisson(50, (8, 64, 64))).astype(np.float32)
    guess = np.exp(1j * rng.uniform(0, 1, (120, 120))).astype(np.complex64)
    arrays = {"xcoords": x, "ycoords": y, "diff3d": frames, "probeGuess": probe}
    np.savez(folder / "scan.npz", **arrays, objectGuess=guess)
    return folder


def flattened(value):
    if isinstance(value, torch.Tensor):
        return value.tolist() if value.numel() < 10**6 else [value.double().sum().item()]
    if isinstance(value, dict):
        return {str(k): flattened(v) for k, v in value.items()}
    return [flattened(v) for v in value] if isinstance(value, list | tuple) else value


def icl(name: str, path: Path, data: Path):
    """Four steps on symbols, both regimes evaluated; return weights and rows."""
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.config.schema import IclConfig
    from pytorch_port.train.experiment import run
    from trainrig.checkpoint import latest_checkpoint
    from trainrig.config import apply_overrides
    from trainrig.runs import LATEST

    sizes = {"n_rare_classes": 6, "n_common_classes": 2, "n_holdout_classes": 4}
    settings = {
        "data.example_type": "symbolic",
        "data.symbolic_config.dataset_size": 12,
        "embedding.example_encoding": "embedding",
        "embedding.emb_dim": 16,
        "transformer.num_layers": 1,
        "transformer.num_heads": 2,
        "transformer.dropout_prob": 0.1,
        "training.batch_size": 4,
        "training_steps": 4,
        "training.save_interval": 2,
        "training.eval_interval": 2,
        "training.log_interval": 1,
        "evaluation.batches": 1,
        "evaluation.batch_size": 4,
        "optimizer.warmup_steps": 2,
        "optimizer.name": name,
        "optimizer.kwargs": ARGUMENTS.get(name, {}),
        **{f"data.generator_config.{key}": value for key, value in sizes.items()},
    }
    config = apply_overrides(IclConfig(), settings)
    result = run(config, Runtime(device="cpu", tracker="none", show_progress=False), path=path)
    checkpoint = latest_checkpoint(path / LATEST)[0]
    rows = [json.loads(line) for line in (path / "logs/metrics.jsonl").read_text().splitlines()]
    if result.status == "complete":
        assert {row["split"] for row in rows} == {"train", "holdout", "no_support"}
        assert all(row["grad_l2"] > 0 for row in rows if row["split"] == "train")
    kept = {} if checkpoint is None else flattened(checkpoint.weights)
    return result.status, (kept, rows)


def needs_rate(name: str) -> bool:
    """Say whether the constructor has no learning rate of its own."""
    rate = inspect.signature(resolve_optimizer(name)).parameters.get("lr")
    return rate is not None and rate.default is rate.empty


def cifar(name: str, path: Path, data: Path):
    """Two epochs of ResNet-8 on 24 synthetic images in channels_last; return final files."""
    from optimizer_quality.config import CifarConfig, OptimizerConfig
    from optimizer_quality.experiment import Runtime, run

    config = CifarConfig(
        dataset="synthetic",
        device="cpu",
        train_items=24,
        train_val_split=0.7,
        batch_size=8,
        num_epochs=2,
        crop_px=8,
        eval_every=1,
        optimizer=OptimizerConfig(
            type=name,
            lr=0.01 if needs_rate(name) else None,
            arguments=ARGUMENTS.get(name, {}),
        ),
    )
    result = run(config, Runtime(quiet=True, tracker="none"), path=path, log_path=path / "logs")
    rows = [json.loads(line) for line in (path / "logs/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("elapsed", None)
    final = path / "final_model.pt"
    weights = torch.load(final, weights_only=True)["model"] if final.exists() else {}
    return result.status, (flattened(weights), rows)


def deepobs(name: str, path: Path, data: Path):
    """Two epochs of a dense network on generated images; return the curves."""
    from deepobs.experiment import DeepObsConfig, Runtime, run
    from deepobs.pytorch import config

    config.reset()
    config.set_default_device("cpu")
    needs_lr = "lr" in inspect.signature(resolve_optimizer(name)).parameters
    settings = DeepObsConfig(
        testproblem="mnist_logreg",
        optimizer=name,
        lr=0.01 if needs_lr else None,
        hyperparams=ARGUMENTS.get(name, {}),
        batch_size=8,
        num_epochs=2,
        train_log_interval=1,
    )
    runtime = Runtime(data_dir=data / "deepobs", verbose=False, checkpoint_interval_s=0)
    result = run(settings, runtime, path=path)
    content = json.loads(result.path.read_text())
    curves = {key: content[key] for key in content if key.endswith(("losses", "accuracies"))}
    return result.status, (curves, [])


def ptychography(name: str, path: Path, data: Path):
    """Two epochs of a small network on eight frames; return weights and losses."""
    from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
    from ptycho_torch.config.execution import ExecutionConfig
    from ptycho_torch.recon.persistence import load_model
    from ptycho_torch.train.experiment import run

    model = ModelConfig(N=64, n_filters_scale=1, gridsize=1)
    config = TrainingConfig(
        model=model,
        output_dir=path,
        nepochs=2,
        batch_size=4,
        n_groups=8,
        backend="pytorch",
        train_data_file=data / "scan.npz",
        optimizer=name,
    )
    settings = ExecutionConfig(accelerator="cpu", learning_rate=1e-4)
    result = run(config, settings, stitch=False)
    losses = (path / "logs/metrics.csv").read_text()
    weights = {} if result.status != "complete" else load_model(path).state_dict()
    return result.status, (flattened(weights), losses)


SYSTEMS: dict[str, Callable] = {
    "ICL": icl,
    "optimizer quality": cifar,
    "DeepOBS": deepobs,
    "ptychography": ptychography,
}
#: Looks at the request to stop before a run stops: within an epoch, not at an end.
STOP_AFTER = {"ICL": 3, "optimizer quality": 4, "DeepOBS": 3, "ptychography": 2}


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = "\n".join(page.read_text(encoding="utf-8").partition(MARK)[0] for page in PAGES)
LIBRARIES = ("torch.optim", "pytorch_optimizer", "schedulefree")
#: Names of papers and families in the pages → the class that stands for them.
FAMILIES = {"Sophia": "SophiaH"}


def page_classes() -> list[str]:
    """Dotted names of optimizers that a page of the docs prints, its own examples included."""
    dotted = re.compile(rf"\b(?:{'|'.join(map(re.escape, LIBRARIES))})\.[A-Z]\w+")
    found = set(dotted.findall(PROSE)) - {"torch.optim.Optimizer"}
    return sorted(found | {f"printed.{name}" for name in vars(printed) if name[0].isupper()})


def printed_names() -> set[str]:
    """Names of optimizer classes, of whichever library, that are words of the pages."""
    libraries = [importlib.import_module(name) for name in LIBRARIES]
    words = {FAMILIES.get(word, word) for word in re.findall(r"\b[A-Z]\w+", PROSE)}
    found = {
        word: getattr(one, word, None) for one in libraries for word in words if word in vars(one)
    }
    return {
        word
        for word, kind in found.items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }


PUBLISHED = [
    f"pytorch_optimizer.{name}" for name in ("AdaHessian", "SophiaH", "AliG", "AdaBelief", "SAM")
]
HAND_WRITTEN = [
    f"optimizers.{kind.__name__}" for kind in (*optimizers.RESUMED, *optimizers.REFUSED)
]
NAMES = list(dict.fromkeys([*OPTIMIZERS, *PRESETS, *PUBLISHED, *page_classes(), *HAND_WRITTEN]))
#: Refused by the class itself, whatever the loop.
OWN_WORDS = {
    "sparseadam": "does not support dense gradients",
    "torch.optim.Muon": "only supports 2D parameters",
}
#: Refused by one system: ptychography has no flag for further arguments of an optimizer.
SYSTEMS_WORDS = {("ptychography", "pytorch_optimizer.SAM"): "argument 'base_optimizer' is required"}
#: What every commit tries: one of each kind, where a step is cheap.
QUICK = {
    "ICL": (
        "schedulefree_adamw",
        "pytorch_optimizer.AdaHessian",
        "optimizers.SharpnessAware",
        "optimizers.ComplexState",
        "optimizers.NoRate",
        "optimizers.OpaqueAttribute",
    ),
    "optimizer quality": ("schedulefree_sgd", "optimizers.ClosureIgnored"),
    "DeepOBS": (
        "muon",
        "optimizers.OwnRate",
        "optimizers.CurvatureScaled",
        "optimizers.GradientHistory",
        "optimizers.ClassCounter",
    ),
    "ptychography": ("optimizers.Averaging",),
}


def outcome(system: str, name: str, folder: Path, data: Path, stopped: Stopped) -> str:
    """Return ``resumed``, ``diverged`` (and resumed), or ``refused: <the reason>``.

    Raises:
        AssertionError: the resumed run is not the undisturbed one.
    """
    train = SYSTEMS[system]
    try:
        status, whole = train(name, folder / "whole", data)
        stopped.left = STOP_AFTER[system]
        with pytest.raises(Interruption):
            train(name, folder / "part", data)
        assert not stopped.left
        again, part = train(name, folder / "part", data)
    except (ValueError, KeyError) as error:  # before the run, or at its first checkpoint
        text = str(error.args[0])
        assert "\n" not in text, text
        return f"refused: {text}"
    assert again == status
    assert without_times(part) == without_times(whole)
    return "resumed" if status == "complete" else status


def without_times(value):
    weights, rows = value
    if isinstance(rows, str):
        return weights, rows
    timed = ("elapsed", "steps_per_second")
    return weights, [{k: v for k, v in row.items() if k not in timed} for row in rows]


CASES = [
    pytest.param(
        system,
        name,
        marks=[] if name in QUICK[system] else [pytest.mark.slow],
        id=f"{system}-{name}",
    )
    for system in SYSTEMS
    for name in NAMES
]


@pytest.mark.parametrize(("system", "name"), CASES)
def test_trains_evaluates_and_resumes_or_is_refused(system, name, tmp_path, data, stopped):
    class_name = name.rpartition(".")[2]
    expected = {kind.__name__: part for kind, part in optimizers.REFUSED.items()}
    found = outcome(system, name, tmp_path, data, stopped)
    if class_name in expected:
        assert expected[class_name] in found
    elif name in OWN_WORDS or (system, name) in SYSTEMS_WORDS:
        assert OWN_WORDS.get(name, SYSTEMS_WORDS.get((system, name), "")) in found
    else:
        assert found in ("resumed", "diverged")
    file = os.environ.get("TRAINRIG_CONTRACT_TABLE")  # where outcomes for a new table go
    if file:
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write(json.dumps([system, name, found]) + "\n")
    else:
        cell = rows_of_page()[name][1 + list(SYSTEMS).index(system)]
        assert cell == shown(found)


def test_one_registration_is_known_to_every_system(monkeypatch):
    """What docs/extending.md promises of a new optimizer: one file, one line."""
    from torch import nn

    from deepobs.pytorch.runners.runner import make_runner
    from optimizer_quality.config import OptimizerConfig
    from optimizer_quality.utils import get_optimizer
    from ptycho_torch.config.canonical import TrainingConfig
    from ptycho_torch.train.steps import build_optimizer
    from pytorch_port.config.schema import IclConfig
    from pytorch_port.model.assembly import make_icl_optimizer
    from trainrig.config import apply_overrides

    monkeypatch.setattr(OPTIMIZERS, "_entries", dict(OPTIMIZERS._entries))
    OPTIMIZERS.register("brand_new")(optimizers.SignMomentum)
    model = nn.Linear(3, 2)
    config = apply_overrides(IclConfig(), {"optimizer.name": "brand_new"})
    settings = OptimizerConfig(type="Brand_New", lr=0.1)
    runner, _ = make_runner("brand_new", {"lr": 0.1})
    made = [make_icl_optimizer(config, model), get_optimizer(model, settings)]
    assert {type(one) for one in made} == {runner.optimizer_class} == {optimizers.SignMomentum}
    training = TrainingConfig(model=None, optimizer="brand_new")
    built = build_optimizer(training, list(model.parameters()), lr=0.1, accum_steps=1)
    assert type(built) is optimizers.SignMomentum


def test_the_page_has_a_row_for_every_optimizer():
    rows = rows_of_page()
    assert set(rows) == set(NAMES)
    for row in rows.values():
        assert len(row) == len(SYSTEMS) + 1
        assert all(re.match("resumed$|diverged$|refused: .", cell) for cell in row[1:]), row


def test_every_optimizer_that_a_page_prints_has_a_row():
    rows = {name.rpartition(".")[2].lower() for name in rows_of_page()}
    names = printed_names()
    assert {"AdaHessian", "SAM", "LBFGS", "Muon", "SophiaH"} <= names
    assert {name for name in names if name.lower() not in rows} == set()
    flags = re.findall(r"--optimizers?[ =]((?:[\w.]+(?:=[\d.,e-]+)? ?)+)", PROSE)
    for name in {word.partition("=")[0] for flag in flags for word in flag.split()}:
        if name not in ("package.module.Class", "sign"):  # the latter is printed.SignDescent
            assert name.rpartition(".")[2].lower() in rows, name


KILLED = """
import os, signal, sys
sys.path[:0] = [{folder!r}]
from pathlib import Path
import test_systems
from trainrig.stopping import StopRequest

path, due = Path({path!r}), StopRequest.due

def killed(request):
    if any(path.rglob("weights.pt")):
        os.kill(os.getpid(), signal.SIGKILL)
    return due(request)

StopRequest.due = killed
test_systems.SYSTEMS[{system!r}]({name!r}, path, Path({data!r}))
"""
#: One for each habit that a resumed run may lose.
KILLED_NAMES = [
    "schedulefree_adamw",
    *(f"optimizers.{kind.__name__}" for kind in optimizers.HABITS),
]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "optimizers.GradientHistory" else [pytest.mark.slow])
        for name in KILLED_NAMES
    ],
)
def test_killed_after_its_first_checkpoint_it_resumes(system, name, tmp_path, data):
    """SIGKILL, which no process can handle, at the first look after a checkpoint is there."""
    status, whole = SYSTEMS[system](name, tmp_path / "whole", data)
    path = tmp_path / "part"
    values = {"system": system, "name": name, "path": str(path), "data": str(data)}
    code = KILLED.format(folder=str(FOLDER), **values)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert any(path.rglob("weights.pt"))
    again, part = SYSTEMS[system](name, path, data)
    assert again == status
    assert without_times(part) == without_times(whole)

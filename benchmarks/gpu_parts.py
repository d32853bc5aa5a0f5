"""Parts of ``gpu_report``: ``python gpu_parts.py PART FOLDER DEVICE`` prints JSON at its end."""

from __future__ import annotations

import json
import math
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gpu_model import CARDS, CONFIG, RUNS, STEPS, count, drawn_inputs
from pytorch_port.config.files import load_icl_config
from pytorch_port.train.experiment import build
from pytorch_port.train.steps import training_steps
from trainrig.config import apply_overrides
from trainrig.device import choose_device, set_precision
from trainrig.seeding import make_deterministic
from trainrig.turns import take_turns

ROOT = Path(__file__).resolve().parents[1]
SIZE = 8192  # of the square matrices whose product measures a peak


def seconds_of(work: Callable[[], Any], times: int = 10) -> float:
    """Return the seconds of one call, after two to warm up, on the device's own clock."""
    for _ in range(2):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / times


def facts(folder: Path, device: torch.device) -> dict[str, Any]:
    """Versions, the card, and what it reaches in a copy and in products of matrices."""
    properties = torch.cuda.get_device_properties(device)
    found: dict[str, Any] = {
        "card": properties.name,
        "memory GiB": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    copied = seconds_of(lambda: target.copy_(source))
    found["copy GB/s"] = round(2 * source.nbytes / copied / 1e9)
    for precision in ("fp32", "tf32", "bf16"):
        set_precision(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        one = torch.ones(SIZE, SIZE, device=device, dtype=dtype)
        taken = seconds_of(lambda one=one: one @ one)
        found[f"{precision} TFLOP/s"] = round(2 * SIZE**3 / taken / 1e12, 1)
    return found


def engines(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Milliseconds of a step by engine, precision and number of runs, and the model's floor."""
    table = []
    for precision in ("fp32", "tf32", "bf16"):
        floor = count(precision, 32, device)["step"]
        traffic = floor.totals()["gigabytes"]
        for engine, runs in (("eager", 1), ("graph", 1), ("graph", 5), ("graph", 10)):
            taken = _step_seconds(engine, precision, runs, device)
            table.append(
                {
                    "engine": engine,
                    "precision": precision,
                    "runs": runs,
                    "ms a run and step": round(1e3 * taken, 3),
                    "GB a step": round(traffic, 2),
                    f"modelled ms on {CARDS[0].name}": round(
                        1e3 * floor.seconds(CARDS[0], precision, alone=runs == 1), 2
                    ),
                    "minutes of the published sweep, steps alone": round(taken * RUNS * STEPS / 60),
                }
            )
    return table


def _step_seconds(engine: str, precision: str, runs: int, device: torch.device) -> float:
    """Return the seconds of a run's step where ``runs`` of them take turns."""
    steps, warm = 60, 20
    changes = {
        "training.precision": precision,
        "training_steps": steps,
        "optimizer.name": "adamw",
    }
    config = apply_overrides(load_icl_config(CONFIG), changes)
    set_precision(config.training.precision)
    inputs = drawn_inputs(config, device)
    stamps: list[float] = []

    def begin(own: Callable[[], None]) -> Any:
        model, optimizer = build(config, inputs)
        for _ in training_steps(config, inputs, model, optimizer, engine=engine):
            yield engine

    def progress(taken: int) -> None:
        if len(stamps) in (warm, steps - 2):
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    take_turns([begin] * runs, device, most=runs, progress=progress)
    return (stamps[steps - 2] - stamps[warm]) / (steps - 2 - warm) / runs


def problems(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """A training step of each DeepOBS problem, its loss finite."""
    from deepobs.pytorch import config, testproblems
    from deepobs.pytorch.datasets.generated import write_generated_data
    from deepobs.pytorch.testproblems import TESTPROBLEMS

    set_precision("fp32")
    config.set_default_device(str(device))
    write_generated_data(folder / "data", examples=64)
    config.set_data_dir(str(folder / "data"))
    table = []
    for name in TESTPROBLEMS:
        problem = getattr(testproblems, name)(2)
        problem.set_up()
        problem.train_init_op()
        losses = []
        optimizer = torch.optim.SGD(problem.net.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            loss, _ = problem.get_batch_loss_and_accuracy()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        row = {"problem": name, "loss": losses[0], "next": losses[1]}
        table.append(row | {"finite": all(map(math.isfinite, losses))})
    return table


def determinism(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Three runs of each system, the third stopped and continued: equal weights, bit for bit."""
    table = []
    for system, command in _small_runs(device).items():
        digests = {}
        for name in ("first", "second", "stopped"):
            out = folder / system / name
            if name == "stopped":
                _stop(command(out), out)
            subprocess.run(command(out), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            digests[name] = _weights(out)
        row = {
            "system": system,
            "repeated": digests["first"] == digests["second"],
            "stopped and continued": digests["first"] == digests["stopped"],
        }
        table.append(row)
    return table


def _small_runs(device: torch.device) -> dict[str, Callable[[Path], list[str]]]:
    python, where = sys.executable, str(device)

    def icl(out: Path) -> list[str]:
        words = "--config configs/icl/symbolic.py --max-steps 400 --save-interval 100 --no-track"
        return [python, "analysis/pytorch_train.py", *words.split(), "--device", where,
                "--eval-batches", "1", "--output-dir", str(out)]  # fmt: skip

    def cifar(out: Path) -> list[str]:
        words = "--dataset synthetic --num-epochs 4 --no-track --set train_items=640"
        return [python, "scripts/run_experiment.py", *words.split(), "--device", where, "--set",
                f"log_dir={out}/logs", "--set", f"results_dir={out}/results"]  # fmt: skip

    def deepobs(out: Path) -> list[str]:
        words = "quadratic_deep --optimizer Adam --lr 0.01 --bs 128 -N 20 --quiet"
        return [python, "scripts/run_deepobs.py", *words.split(), "--checkpoint_interval_s", "0",
                "--device", where, "--output_dir", str(out)]  # fmt: skip

    def ptycho(out: Path) -> list[str]:
        scan = out.parent / "scan.npz"
        scan.parent.mkdir(parents=True, exist_ok=True)
        if not scan.exists():
            simulate = [python, "scripts/simulate_ptycho.py", str(scan), "--rows", "4"]
            subprocess.run(simulate, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        words = "--nepochs 6 --batch_size 4 --n_groups 16 --n_filters_scale 1 --accelerator cuda"
        return [python, "scripts/train_ptycho.py", *words.split(), "--quiet", "--resume",
                "--no-do_stitching", "--train_data_file", str(scan), "--output_dir",
                str(out)]  # fmt: skip

    return {"icl": icl, "cifar": cifar, "deepobs": deepobs, "ptycho": ptycho}


def _stop(command: Sequence[str], out: Path) -> None:
    """Start a run and ask it to stop after its first checkpoint."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None and not list(out.glob("**/checkpoints/**/manifest.json")):
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    child.wait()


def _weights(out: Path) -> list[str]:
    """Return the digests of the weights in the last checkpoint of each run below a folder."""
    found: dict[Path, tuple[int, str]] = {}
    for path in out.glob("**/checkpoints/**/manifest.json"):
        manifest = json.loads(path.read_text("utf-8"))
        digest = manifest["files"]["weights.pt"]["sha256"]
        run = path.parent.parent
        found[run] = max(found.get(run, (-1, "")), (manifest["step"], digest))
    return [found[folder][1] for folder in sorted(found)]


def patterns(folder: Path, device: torch.device) -> dict[str, Any]:
    """Patterns per second through the network alone, batch by batch."""
    from ptycho_torch.config.canonical import ModelConfig
    from ptycho_torch.network.pinn import PtychoPINN

    probe = torch.ones(1, 64, 64, dtype=torch.complex64)
    network = PtychoPINN(ModelConfig(N=64, gridsize=1), probe, 1.0).to(device).eval()
    found = {}
    with torch.inference_mode():
        for batch in (16, 256, 1024):
            frames = torch.rand(batch, 1, 64, 64, device=device)
            taken = seconds_of(lambda frames=frames: network.centres(frames))
            found[f"batches of {batch}"] = round(batch / taken)
    return found


PARTS: dict[str, Callable[[Path, torch.device], Any]] = {
    part.__name__: part for part in (facts, engines, problems, determinism, patterns)
}

if __name__ == "__main__":
    make_deterministic()
    chosen = choose_device(sys.argv[3])
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]), chosen)))

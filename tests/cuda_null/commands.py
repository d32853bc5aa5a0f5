"""The systems' smallest runs by their public commands; the same command continues a stopped run."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from null_gpu import HERE, ROOT, Result, run

LATER = str(10**6)


def icl(out: Path, *more: str, engine: str = "graph", steps: int = 24, device: str = "cuda"):
    """In-context learning on symbols."""
    return [
        "analysis/pytorch_train.py",
        *("--config", "configs/icl/symbolic.py", "--engine", engine, "--device", device),
        *("--max-steps", str(steps), "--save-interval", "12", "--log-interval", "12"),
        *("--eval-interval", LATER, "--eval-batches", "2", "--no-track"),
        *("--output-dir", str(out), *more),
    ]


def icl_images(out: Path, *more: str, engine: str = "graph", steps: int = 10):
    """The published configuration, 105 px, on procedural glyphs of fewer classes."""
    return [
        *(str(HERE / "large_glyphs.py"), "analysis/pytorch_train.py"),
        *("--config", "configs/icl/images_all_exemplars.py", "--engine", engine),
        *("--source", "synthetic", "--n-rare", "40", "--device", "cuda", "--max-steps", str(steps)),
        *("--save-interval", LATER, "--log-interval", LATER, "--eval-interval", LATER),
        *("--eval-batches", "16", "--no-track", "--output-dir", str(out), *more),
    ]


def sweep(out: Path, *more: str, runs: int = 2, steps: int = 24):
    """A sweep over weight decays, its runs side by side on one device."""
    decays = ("0", "0.1", "1", "10")[:runs]
    return [
        "analysis/run_adamw_sweep_torch.py",
        *("--preset", "quick", "--class_counts", "100", "--weight_decays", *decays),
        *("--device", "cuda", "--training_steps", str(steps), "--source", "synthetic"),
        *("--set", "training.save_interval=12", "--max_eval_batches", "1", "--no-track"),
        *("--base_output_dir", str(out), *more),
    ]


def cifar(out: Path, *more: str, epochs: int = 2, device: str = "cuda"):
    """Optimizer quality: ResNet-8 on made-up images."""
    return [
        "scripts/run_experiment.py",
        *("--dataset", "synthetic", "--num-epochs", str(epochs), "--device", device, "--no-track"),
        *("--set", f"log_dir={out}/logs", "--set", f"results_dir={out}/results"),
        *("--set", "train_items=640", "--set", "eval_every=1", *more),
    ]


def deepobs(out: Path, *more: str, epochs: int = 4, device: str = "cuda"):
    """DeepOBS: a small network on made-up digits."""
    data = out.parent / "deepobs-data"
    if not data.exists():
        code = (
            "import pathlib, sys; from deepobs.pytorch.datasets import generated; "
            "generated.write_generated_data(pathlib.Path(sys.argv[1]), examples=300)"
        )
        subprocess.run([sys.executable, "-c", code, str(data)], check=True, cwd=ROOT)
    return [
        *("scripts/run_deepobs.py", "mnist_mlp", "--optimizer", "Adam", "--lr", "0.01"),
        *("--bs", "50", "-N", str(epochs), "--data_dir", str(data), "--output_dir", str(out)),
        *("--device", device, "--quiet", *more),
    ]


def scan(folder: Path) -> Path:
    """A made-up scan of 16 frames."""
    path = folder / "scan.npz"
    if not path.exists():
        command = [sys.executable, "scripts/simulate_ptycho.py", str(path), "--rows", "4"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return path


def ptycho(out: Path, *more: str, epochs: int = 4):
    """Ptychography: training on a made-up scan."""
    return [
        *("scripts/train_ptycho.py", "--train_data_file", str(scan(out.parent))),
        *("--output_dir", str(out), "--nepochs", str(epochs), "--batch_size", "2"),
        *("--n_groups", "16", "--n_filters_scale", "1", "--accelerator", "cuda", "--quiet"),
        *("--no-do_stitching", "--resume", *more),
    ]


def checkpoints(out: Path) -> set[str]:
    """Return the checkpoints below a folder that are complete."""
    numbered = {f"{p.parent}" for p in out.glob("**/checkpoints/**/step_*/manifest.json")}
    lightning = out.glob("**/checkpoints/last.ckpt")
    return numbered | {f"{p} {p.stat().st_mtime_ns}" for p in lightning}


def new_checkpoints(out: Path, count: int) -> Callable[[], bool]:
    """Return a condition: so many checkpoints appeared that were not there before."""
    before = checkpoints(out)
    seen = set(before)

    def met() -> bool:
        with contextlib.suppress(FileNotFoundError):  # one was replaced meanwhile
            seen.update(checkpoints(out))
        return len(seen) - len(before) >= count

    return met


def first_rows(out: Path) -> dict[Path, str]:
    """Return the first line of each log; its clock does not come out equal twice."""
    return {p: p.read_text("utf-8").partition("\n")[0] for p in out.glob("**/progress.txt")}


def stop_and_resume(
    argv: list[str],
    out: Path,
    by: signal.Signals,
    *,
    devices: tuple[int, int] = (1, 1),
    after: int = 1,
) -> tuple[Result, Result]:
    """Stop a run after some checkpoints; assert that the same command continues it."""
    first = run(argv, devices=devices[0], stop=(new_checkpoints(out, after), by))
    expected = -by if by == signal.SIGKILL else 128 + by
    assert first.status == expected, first.said()
    before = first_rows(out)
    second = run(argv, devices=devices[1])
    assert second.status == 0, second.said()
    assert before, "nothing was logged before the interruption"
    after = first_rows(out)
    assert {p: after[p] for p in before} == before, "begun again, not continued"
    assert not first.tally.refusals + second.tally.refusals
    return first, second


def environment_of(run_folder: Path) -> dict:
    """Return what a run recorded of its making."""
    return json.loads((run_folder / "environment.json").read_text("utf-8"))

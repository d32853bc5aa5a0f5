"""The commands of README and docs, in the order of each page, and how they run at toy size."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: A fenced block, an indented line with its continuations, or words between backticks.
PIECE = re.compile(
    r"^```(?P<language>\w*)\n(?P<fence>.*?)^```$"
    r"|^ {4}(?P<indented>\S(?:[^\n]|(?<=\\)\n)*)$"
    r"|(?<!`)`(?P<inline>[^`]+)`(?!`)",
    re.M | re.S,
)
#: One line with its continuations, and with the text that it feeds to a program.
STATEMENT = re.compile(r"[^\n]*<<'(\w+)'\n.*?^\1$|(?:[^\n]|(?<=\\)\n)+", re.M | re.S)
#: Outside shell blocks, what begins so is a command.
PROGRAM = re.compile(
    r"(?:\.venv/bin/)?(?:python|make|pip|pytest|srun|torchrun|trainrig|ptychodus) \S"
)


class Need(NamedTuple):
    """What a command needs that is not everywhere.

    Attributes:
        reason: why it is skipped.
        data_sets: it runs where all of these are found; none: it never does.
    """

    reason: str
    data_sets: tuple[str, ...] = ()


def commands(page: Path) -> list[str]:
    """Return a page's commands in order; one that is only mentioned again is not repeated."""
    found: list[str] = []
    for piece in PIECE.finditer(page.read_text(encoding="utf-8")):
        shell = piece["language"] in ("bash", "sh", "console")
        if piece["language"] and not shell:
            continue
        if piece["inline"]:
            statements = [" ".join(piece["inline"].split())]
        else:
            text = piece["fence"] or piece["indented"]
            statements = [one[0] for one in STATEMENT.finditer(text)]
        for statement in map(_clean, statements):
            mentioned = piece["inline"] and statement in found
            if statement and not mentioned and (shell or PROGRAM.match(statement)):
                found.append(statement)
    return found


def _clean(statement: str) -> str:
    """Join continuations and drop prompt, comment and the environment's folder."""
    joined = re.sub(r" *\\\n *", " ", statement.strip())
    return re.sub(r"^\$ |^#.*| +#.*|(?<!\S)\.venv/bin/", "", joined)


def recipe(target: str) -> list[str]:
    """Return what ``make target`` runs in an installed environment."""
    told = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/installed", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [_clean(line) for line in told.stdout.splitlines()]


def made_by(page: Path) -> set[str]:
    """Return the files that a reader of the page makes."""
    return set(re.findall(r"^New file `([^`]+)`", page.read_text(encoding="utf-8"), re.M))


ICL_TOY = (
    "--device cpu --set training.batch_size=2 --set evaluation.batches=1 "
    "--set evaluation.batch_size=2"
)
CIFAR_TOY = "--dataset synthetic --num-epochs 1 --set model=resnet8_6n2 --set train_items=100"
PTYCHO_TOY = "--accelerator cpu --refine 2"

#: Pattern of a command → what is appended to it, so that it takes seconds and needs no GPU. A later
#: flag overrides an earlier one. All patterns that match count.
TOY = {
    r"^python analysis/pytorch_train\.py": ICL_TOY,
    r"^python analysis/pytorch_train\.py(?!.*--max-steps (30|200)\b)": "--max-steps 12",
    r"^torchrun .*pytorch_train": f"--max-steps 2 {ICL_TOY} --set training.batch_size=4",
    r"^python analysis/run_adamw_sweep_torch\.py": (
        f"--class_counts 100 --weight_decays 0 0.1 --training_steps 4 {ICL_TOY}"
    ),
    r"^python analysis/run_figure3a_torch\.py": f"--class-counts 100 --max-steps 4 {ICL_TOY}",
    r"^python analysis/reproduce_published\.py": f"--max-steps 4 {ICL_TOY}",
    r"^python analysis/reproduce_published\.py .*--slice": "--slice 1/14",
    r"^python analysis/plot_figure3_adamw\.py": "--max_eval_batches 1 --device cpu",
    r"^python scripts/(run_experiment|sweep_optimizers)\.py": CIFAR_TOY,
    r"^python scripts/sweep_optimizers\.py": "--seeds 0 1",
    r"^python analysis/compare_solutions\.py": (
        "--n-probe 50 --n-hessian 50 --n-statistics 50 --lanczos-steps 5 --trace-probes 2 "
        "--n-points 3 --lines-per-kind 1 --feature-steps 2"
    ),
    r"scripts/run_deepobs\.py \w": "-N 1 --device cpu",
    r"^python scripts/tune_deepobs\.py": "-N 1",
    r"^python scripts/tune_deepobs\.py(?!.*--search)": "--grid lr=0.1",
    r"^python scripts/tune_deepobs\.py .*--search": "--trials 1",
    r"^python scripts/estimate_deepobs_runtime\.py": (
        "--test_problem quadratic_deep -N 1 --num_runs 1"
    ),
    r"^python benchmarks/measure_deepobs\.py": "--batches 2 --repeats 1 --seeds 1",
    r"^python scripts/simulate_ptycho\.py": "--rows 10",
    r"scripts/(train|ensemble)_ptycho\.py": f"--nepochs 1 --n_groups 16 {PTYCHO_TOY}",
    r"^python scripts/ensemble_ptycho\.py": "--seeds 0 1",
    r"^python scripts/infer_ptycho\.py": PTYCHO_TOY,
    r"^python scripts/evaluate_ptycho\.py .*--centre-px": "--centre-px 32",
    r"^python -m ptycho_torch\.ptychodus -b": "--refine 2",
    r"^python scripts/benchmark\.py": "--repeats 1 --steps 1",
    r"^python scripts/benchmark\.py icl$": "--cases symbolic",
    r"^python scripts/soak\.py": "--minutes 0.01 --kills 1 --systems deepobs",
    r"^python benchmarks/measure_launchers\.py": "--tasks 1",
    r"^python benchmarks/measure_manifest\.py": "--runs 10",
    r"^python scripts/dashboard\.py": "--once --no-browser",
    # tests/faults/test_clusters.py launches on both.
    r"--launcher (slurm|ray)(?!.*--attach)": "--launcher local",
    r"--attach": "--dry-run",
    r"^(python -m )?pytest": "--collect-only -q",  # `make full` runs them all
    r"^python scripts/prepare_data\.py": "--only mnist --source $TRAINRIG_DATA_DIR",
}

#: Pattern of a command → why it is not run here, or which data sets it reads.
NEEDS = {
    r"^pip install|^python -m venv": Need("would change the environment of the tests"),
    r"^srun": Need("needs a SLURM cluster"),
    r"golden_ones\.npz|synthetic_scan\.npz": Need("needs the recorded scan, which is not tracked"),
    r"^ptychodus|^python -m ptycho_torch\.ptychodus|model\.ckpt|out/product": Need(
        "needs Ptychodus"
    ),
    r"imagenet_": Need("needs ImageNet", ("imagenet",)),
    r"--download|images_identical|data get omniglot|--preset extended": Need(
        "needs Omniglot", ("omniglot",)
    ),
    r"data get mnist|prepare_data|mnist_mlp|data verify": Need("needs MNIST", ("mnist",)),
}


def toy(command: str) -> str:
    """Return the command with its toy size."""
    return " ".join(
        [command, *(flags for pattern, flags in TOY.items() if re.search(pattern, command))]
    )


def need(command: str) -> Need | None:
    """Return what a command needs, if anything."""
    return next((one for pattern, one in NEEDS.items() if re.search(pattern, command)), None)

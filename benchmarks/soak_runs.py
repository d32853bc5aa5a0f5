"""Kill small runs of all four systems at random moments; compare each end with an undisturbed one.

Example:
    python scripts/soak.py --minutes 30 --kills 200

Exit status 1 if any run ended otherwise, or a process outlived its killed parent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainrig.cli import Parser, entry, positive_int

if TYPE_CHECKING:
    from kills import Command

ICL = """
    --config configs/icl/symbolic.py --device cpu --no-track --num-layers 1 --num-heads 2 --n-rare 6
    --n-common 2 --n-holdout 4 --symbolic-dataset-size 12 --max-steps 60 --save-interval 6
    --log-interval 3 --eval-interval 12 --eval-batches 1 --eval-batch-size 4 --batch-size 4
    --optimizer adamw --set embedding.emb_dim=16 --set transformer.dropout_prob=0.1
"""
CIFAR = """
    --config configs/optimizer_quality/base_config.yaml --dataset synthetic --num-epochs 3
    --no-track --quiet --set model=resnet8_6n2 --set batch_size=50 --set train_items=100
"""
DEEPOBS = (
    "quadratic_deep --optimizer Adam --lr 0.04 -N 8 --quiet --threads 1 --checkpoint_interval_s 0"
)
PTYCHO = """
    --nepochs 3 --batch_size 4 --n_groups 8 --gridsize 1 --n_filters_scale 1 --accelerator cpu
    --no-do_stitching --quiet
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="at least so long (10)")
    parser.add_argument("--kills", type=positive_int, default=200, help="at least so many (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    choices = ("icl", "cifar", "deepobs", "ptycho")
    parser.add_argument("--systems", nargs="+", choices=choices, help="systems to kill (all)")
    parser.add_argument("--folder", type=Path, help="scratch (a temporary one)")
    return parser.parse_args(argv)


def commands(scan: Path) -> list[Command]:
    """Return the training command of each system; ``scan`` is that of ptychography."""
    from kills import Command

    return [
        Command(
            "icl",
            "pytorch_train",
            lambda path: [*ICL.split(), "--output-dir", path],
            ("pytorch_port.sweep.carry_out", "torch._dynamo", "ml_collections"),
        ),
        Command(
            "cifar",
            "run_experiment",
            lambda path: f"{CIFAR} --set results_dir={path} --set log_dir={path}/logs".split(),
            ("optimizer_quality.experiment",),
        ),
        Command(
            "deepobs",
            "run_deepobs",
            lambda path: [*DEEPOBS.split(), "--output_dir", path],
            ("deepobs.pytorch.runners",),
        ),
        Command(
            "ptycho",
            "train_ptycho",
            lambda path: [*PTYCHO.split(), "--train_data_file", scan, "--output_dir", path],
            ("ptycho_torch.train.workflows", "ptycho_torch.train.train"),
        ),
    ]


@entry
def main(argv: list[str] | None = None) -> int:
    """Soak and report."""
    arguments = parse_args(argv)
    root = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(root / "scripts"), str(root / "analysis")]
    import torch
    from simulate_ptycho import main as simulate

    from kills import own_size, soak, table

    torch.set_num_threads(1)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="soak_"))
    folder.mkdir(parents=True, exist_ok=True)
    scan = folder / "scan.npz"
    simulate([str(scan), "--rows", "4"])
    chosen = [c for c in commands(scan) if c.name in (arguments.systems or [c.name])]
    before, started, tallies = None, time.monotonic(), {}
    seconds = 60 * arguments.minutes
    for tallies in soak(
        chosen, folder, seconds=seconds, kills=arguments.kills, seed=arguments.seed
    ):
        before = before or own_size()
        done = "  ".join(f"{name} {t.kills}/{t.mismatches}" for name, t in tallies.items())
        print(f"{time.monotonic() - started:.0f} s, kills/mismatches: {done}", flush=True)
    after = own_size()
    print("\n".join(table(tallies)))
    print(
        f"soak itself: file handles {before[0]} -> {after[0]}, {before[1]:.0f} -> {after[1]:.0f} MB"
    )
    return 1 if any(t.mismatches or t.leaked for t in tallies.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())

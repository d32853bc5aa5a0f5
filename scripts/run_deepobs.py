"""Run an optimizer on a DeepOBS test problem and write its result file.

The result is <output>/<problem>/<optimizer>/<setting>/random_seed__<seed>__<time>.json. The same
command after a crash resumes exactly.

Examples:
    python scripts/run_deepobs.py quadratic_deep --optimizer Adam --lr 0.0398
    python scripts/run_deepobs.py fmnist_2c2d --optimizer my_module.MyOptimizer --hp momentum=0.9
    python scripts/run_deepobs.py --smoke
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from trainrig.cli import Parser, entry
from trainrig.config import parse_assignments
from trainrig.profiling import add_profile_flag, profiled

#: Flags that are arguments of the runner under the same name.
PASSED_ON = (
    *("batch_size", "num_epochs", "random_seed", "data_dir", "output_dir", "weight_decay", "l2"),
    *("no_logs", "tb_log", "tb_log_dir", "track", "train_log_interval", "print_train_iter"),
    *("skip_if_exists", "on_divergence", "checkpoint_interval_s"),
    *("lr_sched_epochs", "lr_sched_factors"),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``None`` means the default of the runner or of the problem."""
    parser = Parser(description=__doc__)
    parser.add_argument("testproblem", nargs="?", help="e.g. mnist_mlp")
    parser.add_argument("--smoke", action="store_true", help="all problems on generated data")
    parser.add_argument("--optimizer", default="SGD", help="SGD, Momentum, Adam, or dotted.Class")
    parser.add_argument("--optimizer-name", help="name of the result folder")
    parser.add_argument("--lr", "--learning_rate", dest="lr", type=float)
    parser.add_argument("--hp", action="append", metavar="NAME=VALUE", help="hyperparameter")
    parser.add_argument("--bs", "--batch_size", dest="batch_size", type=int)
    parser.add_argument("-N", "--num_epochs", dest="num_epochs", type=int)
    parser.add_argument("-r", "--random_seed", dest="random_seed", type=int, default=42)
    parser.add_argument("--wd", "--weight_decay", dest="weight_decay", type=float)
    parser.add_argument("--l2", choices=("loss", "optimizer-groups"), default="loss")
    parser.add_argument("--lr_sched_epochs", nargs="+", type=int)
    parser.add_argument("--lr_sched_factors", nargs="+", type=float)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("results"))
    parser.add_argument("--train_log_interval", type=int, default=10)
    parser.add_argument("--print_train_iter", action="store_true")
    parser.add_argument("--tb_log", "--tf_logging", dest="tb_log", action="store_true")
    parser.add_argument("--tb_log_dir", type=Path)
    parser.add_argument("--track", action="store_true", help="show curves live with trackio")
    parser.add_argument("--no_logs", action="store_true")
    parser.add_argument("--skip_if_exists", action="store_true")
    parser.add_argument("--on_divergence", choices=("stop", "continue"), default="stop")
    parser.add_argument("--checkpoint_interval_s", type=float, default=60.0)
    parser.add_argument("--compat", choices=("reference", "fixed"))
    parser.add_argument("--device")
    parser.add_argument("--dtype", choices=("float32", "float64"))
    parser.add_argument("--threads", type=int, help="CPU threads of one operation")
    parser.add_argument("--quiet", action="store_true")
    add_profile_flag(parser)
    args = parser.parse_args(argv)
    if args.testproblem is None and not args.smoke:
        parser.error("give a test problem, or --smoke")
    return args


def smoke(names: list[str]) -> int:
    """Run the smoke tier and report."""
    from deepobs.pytorch.runners.smoke import smoke_all

    outcomes = smoke_all(names, lambda line: print(line, flush=True))
    failed = [outcome.name for outcome in outcomes if outcome.problem]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} test problems passed")
    return 1 if failed else 0


def configure(args: argparse.Namespace) -> None:
    """Apply the settings that hold for the process."""
    from deepobs.pytorch import config
    from trainrig.device import set_threads

    if args.threads is not None:
        set_threads(args.threads)
    for setter, value in (
        (config.set_compat, args.compat),
        (config.set_default_device, args.device),
        (config.set_dtype, args.dtype),
    ):
        if value is not None:
            setter(value)


@entry
def main(argv: list[str] | None = None) -> int:
    """Run one setting, or the smoke tier."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO if not args.quiet else logging.WARNING)
    configure(args)
    if args.smoke:
        return smoke([args.testproblem] if args.testproblem else [])
    from deepobs.pytorch.runners import StandardRunner
    from deepobs.pytorch.runners.hyperparameters import find_optimizer, specify

    optimizer_class, preset = find_optimizer(args.optimizer)
    hyperparams: dict[str, Any] = preset | parse_assignments(args.hp)
    if args.lr is not None:
        hyperparams["lr"] = args.lr
    name = args.optimizer_name or args.optimizer.rpartition(".")[2]
    specification = specify(optimizer_class)
    # Arguments left at the optimizer's own default are no part of the setting's name.
    chosen = {
        key: entry
        for key, entry in specification.items()
        if key in hyperparams or (key == "lr" and "default" not in entry)
    }
    unknown = {key: {} for key in hyperparams if key not in specification}
    runner = StandardRunner(optimizer_class, specification if unknown else chosen, name)
    with profiled(args.profile):
        output = runner.run(
            args.testproblem,
            hyperparams,
            verbose=not args.quiet,
            progress=sys.stderr.isatty() and not args.quiet,
            **{key: getattr(args, key) for key in PASSED_ON},
        )
    if output is None:
        print("a result of this seed exists; skipped")
    elif output["status"] == "diverged":
        print(f"diverged after {len(output['train_losses']) - 1} evaluated epochs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

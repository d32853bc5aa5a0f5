"""Train ResNet-8 with one optimizer and record the run.

Examples:
    python scripts/run_experiment.py --optimizer adamw --lr 1e-3 --seed 0
    python scripts/run_experiment.py --set dataset=fashion_mnist --set num_epochs=5

The run's folder is {optimizer}_{what differs from the file}_seed{S} below results_dir, such as
adamw_lr0.001_seed0. The same command again continues an unfinished run; with --output-dir RUN and a
larger --num-epochs, a finished one becomes longer. Another optimizer without --lr uses that
optimizer's own default rate, not the file's. Figures in brackets are those of base_config.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, add_init_flags, add_print_config_flag, entry, given_flags
from trainrig.data import catalogue
from trainrig.profiling import add_profile_flag, profiled
from trainrig.terminal import print_config
from trainrig.tracking.tracker import add_tracker_flags

BASE_CONFIG = Path("configs/optimizer_quality/base_config.yaml")
#: Flags that are no keys of the configuration.
NO_KEYS = (
    *("config", "set", "print_config", "output_dir"),
    *("threads", "overwrite", "tracker", "quiet", "profile"),
)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, default=BASE_CONFIG, help=f"({BASE_CONFIG})")
    parser.add_argument("--output-dir", type=Path, help="run directory (named below results_dir)")
    run = parser.add_argument_group("the run")
    run.add_argument("--optimizer", dest="optimizer.type", help="name or package.Class (sgd)")
    run.add_argument("--lr", dest="optimizer.lr", help="learning rate (0.1)")
    text = "of the optimizer (1e-4)"
    run.add_argument("--weight-decay", dest="optimizer.weight_decay", help=text)
    run.add_argument("--seed", type=int, help="(42)")
    run.add_argument("--experiment-name", help="the tracker's project (resnet8_cifar10_baseline)")
    run.add_argument("--dataset", help=", ".join(catalogue.image_sets()))
    run.add_argument("--data-dir", help="folder of data sets (./data)")
    run.add_argument("--download", action="store_const", const=True, help="fetch an absent set")
    run.add_argument("--pipeline", help="resident, or the oracle torchvision (resident)")
    run.add_argument("--precision", help="fp32 or bf16 (fp32)")
    run.add_argument("--engine", help="eager or compile (eager)")
    run.add_argument("--num-epochs", "--epochs", dest="num_epochs", type=int, help="(200)")
    run.add_argument("--batch-size", type=int, help="images per step (128)")
    run.add_argument("--num-workers", type=int, help="of the torchvision pipeline (4)")
    run.add_argument("--device", help="cuda, cuda:N, cpu or auto (cuda, else cpu)")
    run.add_argument("--set", action="append", metavar="KEY=VALUE", help="any other key, dotted")
    add_init_flags(parser)
    process = parser.add_argument_group("this process")
    process.add_argument("--threads", type=int, help="torch threads (1)")
    process.add_argument(
        "--overwrite", action="store_true", help="train an existing run again from the start"
    )
    add_tracker_flags(process)
    process.add_argument("--quiet", action="store_true", help="print the result only")
    add_print_config_flag(process)
    add_profile_flag(process)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Run one experiment and print where it was written."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    flags = {key: value for key, value in vars(arguments).items() if key not in NO_KEYS}
    from optimizer_quality.config import resolve
    from optimizer_quality.experiment import Runtime, place_of, run, shorter_run
    from optimizer_quality.runs_table import write_runs_csv
    from trainrig.recorder import say

    names = given_flags(parser, arguments)
    traced = resolve(arguments.config, flags, names, arguments.set)
    if arguments.print_config:
        return print_config(traced.rows())
    runtime = Runtime(
        threads=arguments.threads,
        overwrite=arguments.overwrite,
        tracker=arguments.tracker,
        quiet=arguments.quiet,
    )
    path = arguments.output_dir or place_of(traced.config, traced.base)
    if (shorter := shorter_run(traced.config, path)) is not None:
        say(f"{path}: starts from its first epoch; --output-dir {shorter} makes that run longer")
    with profiled(arguments.profile):
        result = run(traced.config, runtime, path=path)
    assert result.path is not None  # a run of this system writes its folder
    write_runs_csv(result.path.parent)
    if result.status == "diverged":
        raise ValueError(f"{result.path}: diverged: {result.message}")
    print(f"{result.path}: test accuracy {result.metrics['test']['accuracy']:.4f}")
    return 0

"""Flags that the DeepOBS scripts share. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainrig.tracking.tracker import add_tracker_flags


def add_optimizer_flags(setting: Any) -> None:
    """Add the optimizer, its hyperparameters and the schedule of its learning rate."""
    add_optimizer_flag(setting)
    text = "learning rate (the optimizer's own)"
    setting.add_argument("--lr", "--learning_rate", dest="lr", type=float, help=text)
    text = "another hyperparameter; may be repeated"
    setting.add_argument("--hp", action="append", metavar="NAME=VALUE", help=text)
    text = "epochs at which the learning rate changes (none)"
    setting.add_argument("--lr_sched_epochs", nargs="+", type=int, help=text)
    text = "its factors there, relative to --lr"
    setting.add_argument("--lr_sched_factors", nargs="+", type=float, help=text)


def add_optimizer_flag(setting: Any) -> None:
    """Add the optimizer alone."""
    text = "Adam, Momentum, lion ... in any letter case, or package.module.Class (SGD)"
    setting.add_argument("--optimizer", default="SGD", help=text)
    setting.add_argument("--optimizer-name", help="name of the result folder (the optimizer's)")


def add_mode_flags(run: Any) -> None:
    """Add how the published line is followed."""
    text = "where the L2 term goes: into every loss as published, or to the optimizer (loss)"
    run.add_argument("--l2", choices=("loss", "optimizer-groups"), default="loss", help=text)
    text = "published line with its data defects, or repaired (reference)"
    run.add_argument("--compat", choices=("reference", "fixed"), help=text)
    text = "end a run at its first non-finite loss, or continue (stop)"
    run.add_argument("--on_divergence", choices=("stop", "continue"), default="stop", help=text)
    run.add_argument("--dtype", choices=("float32", "float64"), help="(float32)")


def add_problem_flags(group: Any) -> None:
    """Add what replaces the published defaults of a problem; ``tune_deepobs.py`` has them too."""
    text = "examples per step (the problem's published one)"
    group.add_argument("--bs", "--batch_size", dest="batch_size", type=int, help=text)
    text = "epochs (the problem's published number)"
    epochs = ("-N", "--num_epochs", "--epochs")
    group.add_argument(*epochs, dest="num_epochs", type=int, help=text)
    text = "L2 factor (the problem's published one)"
    group.add_argument("--wd", "--weight_decay", dest="weight_decay", type=float, help=text)
    text = "of initial weights and of the order of the data (42)"
    seed = ("-r", "--random_seed", "--seed")
    group.add_argument(*seed, dest="random_seed", type=int, default=42, help=text)
    text = "folder of data sets ($DEEPOBS_DATA_DIR; data_deepobs, then $TRAINRIG_DATA_DIR or data)"
    group.add_argument("--data_dir", type=Path, help=text)


def add_output_flags(output: Any) -> None:
    """Add where results go and what is shown meanwhile."""
    output.add_argument(
        "--output_dir", type=Path, default=Path("results"), help="root of the results (results)"
    )
    text = "train although a result of this setting and seed is there"
    output.add_argument("--again", action="store_true", help=text)
    output.add_argument("--no_logs", action="store_true", help="write no file at all")
    text = "keep no checkpoint in the end: such a run cannot be trained longer"
    output.add_argument("--no_checkpoint", dest="keep_checkpoint", action="store_false", help=text)
    text = "steps between two logged minibatch losses (10)"
    output.add_argument("--train_log_interval", type=int, default=10, help=text)
    text = "print these losses too"
    output.add_argument("--print_train_iter", action="store_true", help=text)
    text = "write TensorBoard events as well"
    output.add_argument("--tb_log", "--tf_logging", dest="tb_log", action="store_true", help=text)
    output.add_argument("--tb_log_dir", type=Path, help="where (the run's folder)")
    add_tracker_flags(output, default="none")


def add_search_flags(search: Any) -> None:
    """Add what a tuner searches, and how it judges."""
    choices = ("grid", "random", "bayesian")
    search.add_argument("--search", choices=choices, default="grid", help="(grid)")
    text = "values to combine (lr: the 36 published ones); may be repeated"
    search.add_argument("--grid", action="append", metavar="NAME=V1,V2", help=text)
    text = "where to draw, on a logarithmic scale; may be repeated"
    search.add_argument("--range", action="append", metavar="NAME=LOW:HIGH", help=text)
    search.add_argument("--linear", nargs="+", default=[], help="names drawn on a linear scale")
    text = "held fixed; may be repeated"
    search.add_argument("--hp", action="append", metavar="NAME=VALUE", help=text)
    search.add_argument("--trials", type=int, default=20, help="random, bayesian: settings (20)")
    choices = ("tpe", "gp", "random")
    search.add_argument("--sampler", choices=choices, default="tpe", help="bayesian: (tpe)")
    search.add_argument("--seeds", nargs="+", type=int, help="runs per setting (one, seed 42)")
    search.add_argument("--metric", help="curve to judge by, e.g. test_losses (the problem's)")
    text = "judge by the curve's last or its best value (final)"
    search.add_argument("--mode", choices=("final", "best"), default="final", help=text)
    text = "run the best setting with nine further seeds"
    search.add_argument("--rerun-best", action="store_true", help=text)

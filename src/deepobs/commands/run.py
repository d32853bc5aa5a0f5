"""Run an optimizer on a DeepOBS test problem and write its result file.

The result is <output>/<problem>/<optimizer>/<setting>/random_seed__<seed>__<time>.json. The same
command after a crash resumes exactly; a finished run is not repeated, unless --again is given.

Examples:
    python scripts/run_deepobs.py quadratic_deep --optimizer Adam --lr 0.0398
    python scripts/run_deepobs.py fmnist_2c2d --optimizer my_module.MyOptimizer --hp momentum=0.9
    python scripts/run_deepobs.py --smoke
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping
from typing import Any

from deepobs.pytorch.flags import (
    add_mode_flags,
    add_optimizer_flags,
    add_output_flags,
    add_problem_flags,
)
from trainrig.cli import Parser, add_init_flags, add_print_config_flag, entry, given_flags
from trainrig.config import InitConfig, parse_assignments
from trainrig.profiling import add_profile_flag, profiled
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; ``None`` means the default of the runner or of the problem."""
    parser = Parser(description=__doc__)
    parser.add_argument("testproblem", nargs="?", help="e.g. mnist_mlp")
    parser.add_argument("--smoke", action="store_true", help="all problems on generated data")
    add_optimizer_flags(parser.add_argument_group("optimizer"))
    run = parser.add_argument_group("run")
    add_problem_flags(run)
    add_mode_flags(run)
    add_init_flags(parser)
    add_output_flags(parser.add_argument_group("output"))
    process = parser.add_argument_group("this process")
    process.add_argument("--device", help="cpu, cuda, cuda:N or auto (auto)")
    process.add_argument("--threads", type=int, help="CPU threads of one operation (torch's)")
    text = "least seconds between two checkpoints (60)"
    process.add_argument("--checkpoint_interval_s", type=float, default=60.0, help=text)
    process.add_argument("--quiet", action="store_true", help="print warnings only")
    add_print_config_flag(process)
    add_profile_flag(process)
    return parser


def smoke(names: list[str]) -> int:
    """Run the smoke tier and report."""
    from deepobs.pytorch.runners.smoke import smoke_all

    outcomes = smoke_all(names, lambda line: print(line, flush=True))
    failed = [outcome for outcome in outcomes if outcome.problem]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} test problems passed", flush=True)
    if len(failed) == len(outcomes):
        raise ValueError(f"all failed; {failed[0].name}: {failed[0].problem}")
    return 1 if failed else 0


def configure(args: argparse.Namespace) -> None:
    """Apply the settings that hold for the process."""
    from deepobs.pytorch import config
    from trainrig.device import set_threads

    for setter, value in (
        (set_threads, args.threads),
        (config.set_compat, args.compat),
        (config.set_default_device, args.device),
        (config.set_dtype, args.dtype),
    ):
        if value is not None:
            setter(value)


@entry(team=True)
def main(argv: list[str] | None = None) -> int:
    """Run one setting, or the smoke tier."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.testproblem is None and not args.smoke:
        parser.error("give a test problem, or --smoke")
    logging.basicConfig(level=logging.INFO if not args.quiet else logging.WARNING)
    configure(args)
    if args.smoke:
        return smoke([args.testproblem] if args.testproblem else [])
    from deepobs.experiment import DeepObsConfig, Runtime, run, settings_of
    from deepobs.pytorch.runners.settings import trace

    given = parse_assignments(args.hp, flag="--hp")
    flags = vars(args)
    init = InitConfig(run=flags["init.run"], state=bool(flags["init.state"]))
    config = DeepObsConfig(hyperparams=given, init=init, **_fields(DeepObsConfig, flags))
    if args.print_config:
        names = given_flags(parser, args) | {f"hyperparams.{key}": "--hp" for key in given}
        names |= {"hyperparams.lr": "--lr"} if args.lr is not None else {}
        return print_config(trace(settings_of(config), names).rows())
    runtime = Runtime(
        verbose=not args.quiet,
        skip_if_exists=not args.again,
        progress=sys.stderr.isatty() and not args.quiet,
        **_fields(Runtime, flags),
    )
    with profiled(args.profile):
        result = run(config, runtime, path=args.output_dir)
    if result.message:
        print(result.message)
    return 0


def _fields(cls: Any, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are fields of a dataclass under the same name."""
    return {f.name: flags[f.name] for f in dataclasses.fields(cls) if f.name in flags}

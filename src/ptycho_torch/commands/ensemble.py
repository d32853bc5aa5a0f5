r"""Train the ptychography network on one scan with several seeds; the mean object and its spread.

Each seed is an ordinary training below the output folder, seed_{S}: watch it, report it, continue
with it (train_ptycho.py --threads 1). Beside them: runs.csv, and the members' mean with
their standard deviation per pixel in reconstruction.npz and
reconstructed_{amplitude,phase,uncertainty}.png. The same command again continues what is unfinished
and skips what is complete; other seeds in the same folder join the mean of those before, as far as
nothing but the seed differs.

Example:
    python scripts/ensemble_ptycho.py --config configs/ptycho/train.yaml \
        --train_data_file scan.npz --output_dir runs/ptycho/ensemble --seeds 0 1 2 3 --refine 60
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry, given_flags
from trainrig.launch.options import add_launch_flags, launch_options
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    from ptycho_torch.study.cli import add_training_flags

    parser = Parser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one training each")
    parser.add_argument("--overwrite", action="store_true", help="train existing members again")
    add_training_flags(parser, several=True)
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train the members and write the tables; exit status 1 if one has not come to its end."""
    parser = make_parser()
    args = parser.parse_args(argv)  # torch is imported later, so that --help is instant
    from ptycho_torch.study.cli import (
        refine_settings,
        set_log_level,
        trace_training,
        training_from_args,
    )

    if args.print_config:
        seeds = " ".join(map(str, args.seeds))
        rows = trace_training(args, given_flags(parser, args)).rows()
        return print_config(rows, f"seed varies over {seeds}")
    set_log_level(args.quiet)
    scan, config, execution = training_from_args(args)
    import torch

    from ptycho_torch.recon.pipeline import Method
    from ptycho_torch.study.ensemble import (
        combine_folder,
        execute,
        members_of,
        under_their_names,
    )
    from ptycho_torch.study.runs_table import write_runs_csv
    from trainrig.report.write import conclude
    from trainrig.sweep import refuse_if_all_failed

    device = torch.device(execution.resolved_accelerator())
    options = launch_options(args).resolved(device, args.threads)
    members = under_their_names(members_of(config, execution, args.seeds), scan)
    method = Method(refine_settings(args), args.probe_modes or 1)
    process = {"threads": args.threads, "mapped": args.mapped, "overwrite": args.overwrite}
    asked, outcomes = {Path(member.output_dir).name for member, _ in members}, []
    for outcome in execute(members, scan, method, options, **process):
        print(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip(), flush=True)
        outcomes.append(outcome)
        write_runs_csv(config.output_dir, asked)
    if options.dry_run:
        return 0
    refuse_if_all_failed(outcomes)
    files = [write_runs_csv(config.output_dir, asked)]
    if names := combine_folder(config.output_dir, asked):
        print(f"mean and spread of {len(names)} members: {' '.join(names)}")
        files.append(config.output_dir / "reconstructed_uncertainty.png")
    return conclude(config.output_dir, files, outcomes)

"""``python -m ptycho_torch.ptychodus``: Ptychodus's batch program with our own entry in it.

Example:
    python -m ptycho_torch.ptychodus --list
    python -m ptycho_torch.ptychodus -b reconstruct -i IN -o OUT -a trainrig_hybrid
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """List the algorithms, or run one batch action."""
    parser = argparse.ArgumentParser(prog="ptycho_torch.ptychodus", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the algorithms and stop")
    parser.add_argument("-b", "--batch", choices=("reconstruct", "train"))
    parser.add_argument("-i", "--input-directory", type=Path)
    parser.add_argument("-o", "--output-directory", type=Path)
    parser.add_argument("-s", "--settings", type=Path)
    parser.add_argument("-a", "--algorithm", help="key; trainrig_hybrid by default")
    parser.add_argument("--refine", type=int, default=40, help="epochs of refinement")
    parser.add_argument("--log-level", type=int, default=logging.INFO)
    args = parser.parse_args(argv)
    try:
        import ptychodus

        ptychodus.__path__.append(str(Path(__file__).parent / "portion"))
        from ptychodus.model import ModelCore
    except ImportError:
        parser.exit(1, "error: ptychodus is not installed; pip install 'ptychodus==1.7.*'\n")
    from ptycho_torch.ptychodus.reconstructor import register

    with ModelCore(args.settings, log_level=args.log_level) as model:
        key = register(model, epochs=args.refine)
        if args.list:
            print("\n".join(sorted(model.workflow_api.available_reconstructors())))  # noqa: T201
            return 0
        if args.batch is None or args.input_directory is None or args.output_directory is None:
            parser.error("give --list, or -b with -i and -o")
        algorithm, read = model.processing_core.algorithm_parameter, model.settings_registry
        open_settings = read.open_settings

        def open_and_choose(path: Path) -> None:
            open_settings(path)  # the folder's settings.ini may name another algorithm
            algorithm.set_value(args.algorithm or key)

        read.open_settings = open_and_choose
        algorithm.set_value(args.algorithm or key)
        code = model.batch_mode_execute(args.batch, args.input_directory, args.output_directory)
        return int(code)


if __name__ == "__main__":
    raise SystemExit(main())

"""Show runs in a browser, with new rows as they come, until Ctrl-C. Reads the runs only.

Every run at or below the folder is shown, of whichever system, tracked while training or not.

Examples:
    python scripts/dashboard.py runs/torch_adamw_sweep/quick
    python scripts/dashboard.py runs --tracker tensorboard --port 6006
"""

from __future__ import annotations

import argparse
import webbrowser

from trainrig.cli import Parser, add_look_flags, entry
from trainrig.files import scratch_folder


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    add_look_flags(parser, every_s=5.0)
    choices = ("trackio", "tensorboard")
    parser.add_argument("--tracker", choices=choices, default="trackio", help="(trackio)")
    text = "TCP port on this machine (the tracker's own, or the next free one)"
    parser.add_argument("--port", type=int, help=text)
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    text = "copy the rows, print the address, and stop"
    parser.add_argument("--once", action="store_true", help=text)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Serve the dashboard."""
    arguments = make_parser().parse_args(argv)
    from trainrig.dashboard import Mirror, make_board
    from trainrig.report.content import plural

    with scratch_folder(name="dashboard") as scratch:
        project = arguments.folder.resolve().name
        board = make_board(arguments.tracker, project, scratch)
        mirror = Mirror(arguments.folder, board)
        count = mirror.update()
        address = board.serve(arguments.port)
        print(f"{plural(count, 'run')} at {address} (Ctrl-C ends)", flush=True)
        if arguments.once:
            return 0
        if not arguments.no_browser:
            webbrowser.open(address)
        try:
            mirror.follow(arguments.every)
        except KeyboardInterrupt:
            print()
    return 0

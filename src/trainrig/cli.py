"""The command line that every script shares: both flag spellings, one-line errors.

Nothing here imports torch, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

from trainrig.errors import CheckpointError, DivergedError, nearest
from trainrig.processes import alone, process_count, process_rank
from trainrig.stopping import Interruption, stop_at_once
from trainrig.streams import outlive_readers

#: What a user's mistake, or the world, can raise; anything else is a bug and keeps its traceback.
USER_ERRORS = (ValueError, KeyError, OSError, CheckpointError, DivergedError, ImportError)


#: The most runs that are trained as one program, or as many as the memory holds.
PackSize = int | Literal["auto"]


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts ``--flag-name`` and ``--flag_name`` alike.

    Flags default to ``None``, meaning "keep the configuration's value". An unknown flag is answered
    with the nearest known one and exit status 2.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**kwargs)

    def add_argument_group(self, *arguments: Any, **kwargs: Any) -> argparse._ArgumentGroup:
        """Return a group whose flags have both spellings as well."""
        group = super().add_argument_group(*arguments, **kwargs)
        plain = group.add_argument

        def add_argument(*names: str, **options: Any) -> argparse.Action:
            return plain(*_spellings(names), **options)

        group.add_argument = add_argument  # type: ignore[method-assign] # argparse takes no class
        return group

    def add_argument(self, *names: str, **kwargs: Any) -> argparse.Action:
        """Add an argument; every long flag gets its other spelling as well."""
        return super().add_argument(*_spellings(names), **kwargs)

    def parse_args(  # type: ignore[override] # argparse also allows a namespace of any class
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse; refuse unknown arguments, naming the nearest flag."""
        args = [self._spelled(word) for word in (sys.argv[1:] if args is None else args)]
        known = self._flags()
        # Before parsing, or the value of a mistyped flag would be taken for something else.
        for word in (word.partition("=")[0] for word in args):
            if word.startswith("--") and word not in known and word != "--":
                self._refuse(word, known)
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown[0], known)
        return parsed

    def _refuse(self, word: str, known: set[str]) -> NoReturn:
        self.error(f"unknown argument {word}{nearest(word, sorted(known)) or '; see --help'}")

    def _flags(self) -> set[str]:
        """Return every flag of this parser and of its commands."""
        flags = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    flags |= command._flags()
        return flags

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is no choice, naming the nearest one."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = nearest(str(value), known)
            accepted = ", ".join(known)
            raise argparse.ArgumentError(
                action, f"invalid choice: {str(value)!r}{hint} (choose from {accepted})"
            )

    def _spelled(self, word: str) -> str:
        """Return ``--no_flag`` as the ``--no-flag`` that argparse adds to a yes-or-no flag."""
        dashed = word.replace("_", "-")
        known = word.startswith("--no_") and dashed in self._option_string_actions
        return dashed if known else word

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _spellings(names: tuple[str, ...]) -> list[str]:
    spelled = list(names)
    for name in names:
        if name.startswith("--"):
            body = name[2:]
            spelled += [f"--{body.replace('_', '-')}", f"--{body.replace('-', '_')}"]
    return list(dict.fromkeys(spelled))


def add_print_config_flag(parser: Any) -> None:
    """Add ``--print-config``."""
    text = "print every value and where it came from (default, file, flag), and stop"
    parser.add_argument("--print-config", action="store_true", help=text)


def given_flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, str]:
    """Return ``{dest: flag}`` of the flags that were given another value than their default."""
    given: dict[str, str] = {}
    for action in parser._actions:
        value, default = getattr(arguments, action.dest, None), parser.get_default(action.dest)
        if isinstance(default, str):  # as argparse reads it
            default = parser._get_value(action, default)
        if value is not None and value != default:
            given.setdefault(action.dest, (action.option_strings or ["command line"])[0])
    return given


def positive_int(text: str) -> int:
    """Read a flag's value as an integer of at least 1, for ``add_argument(type=...)``.

    >>> positive_int("3")
    3
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; at least 1 is expected")
    return value


def add_init_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a run begins from, see ``trainrig.config.InitConfig``."""
    group = parser.add_argument_group("beginning")
    group.add_argument(
        "--init-from",
        dest="init.run",
        metavar="RUN[@STEP]",
        help="begin with the weights of another run (its newest checkpoint, or that of STEP)",
    )
    group.add_argument(
        "--init-state",
        dest="init.state",
        action="store_const",
        const=True,
        help="take over optimizer, random states and the step's number as well",
    )


def add_pack_flags(parser: argparse.ArgumentParser, default: str) -> None:
    """Add how many runs of a sweep are trained as one program.

    Args:
        parser: of the sweep.
        default: what is done without the flag, for its help.
    """
    parser.add_argument_group("packs").add_argument(
        "--pack",
        type=pack_size,
        metavar="auto|K",
        help=f"train up to K runs in one process; auto: what the memory holds ({default})",
    )


def add_force_engine_flag(group: Any, text: str) -> None:
    """Add ``--force-engine-change``, which lets runs continue with other rounding."""
    group.add_argument("--force-engine-change", action="store_true", help=text)


def pack_size(text: str) -> PackSize:
    """Read ``--pack``: ``auto``, or an integer of at least 1.

    >>> pack_size("auto"), pack_size("5")
    ('auto', 5)
    """
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor an integer of at least 1")
    return int(text)


def add_look_flags(parser: argparse.ArgumentParser, every_s: float) -> None:
    """Add the folder of runs that a view shows, and how often it looks there.

    Args:
        parser: of the view.
        every_s: seconds between looks by default.
    """
    text = "a run, a sweep, or a folder of them (runs)"
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help=text)
    text = f"seconds between looks ({every_s:g})"
    parser.add_argument("--every", type=_positive_float, default=every_s, help=text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no length of time; more than 0 is expected")
    return value


def entry(
    main: Callable[[list[str] | None], int] | None = None, *, team: bool = False
) -> Callable[..., Any]:
    """Decorate a script's ``main``: a user's mistake becomes one line on stderr and status 1.

    A run that was asked to stop ends with one line too, and the status of its ``Interruption``.
    Output that nobody reads is dropped, see ``trainrig.streams``.

    Args:
        main: the function; without one, a decorator is returned.
        team: whether ``torchrun`` may start the script; refused otherwise, with status 2.
    """
    if main is None:
        return functools.partial(entry, team=team)

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        outlive_readers()
        if not team and process_count() > 1:
            return _refuse_team()
        try:
            with stop_at_once():
                return main(argv)
        except USER_ERRORS as error:
            print(f"error: {describe(error)}", file=sys.stderr)  # noqa: T201 - the message itself
            return 1
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
                raise
            print(f"error: {out_of_memory(error)}", file=sys.stderr)  # noqa: T201
            return 1
        except Interruption as stop:
            print(f"{stop}; the same command resumes", file=sys.stderr)  # noqa: T201
            return stop.exit_code
        except KeyboardInterrupt:
            print("interrupted; the same command resumes", file=sys.stderr)  # noqa: T201
            return 130

    return run


def _refuse_team() -> int:
    """Say, in the first process only, that this script is no work for several."""
    if process_rank() == 0:
        print(alone(Path(sys.argv[0]).name), file=sys.stderr)  # noqa: T201 - the message itself
    return 2


def out_of_memory(error: BaseException) -> str:
    """Return one line of torch's words about a device's memory, and what can be done."""
    words = " ".join(str(error).split())
    sizes = ". ".join(words.split(". ")[:3])  # the rest is about the allocator
    return (
        f"the device's memory does not hold the run ({sizes}); use a smaller batch, fewer runs at "
        "a time (--pack), or another device. The same command continues the run"
    )


def describe(error: BaseException) -> str:
    """Return an error's text on one line, without the quotes that ``KeyError`` adds."""
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error)
    return " ".join(text.split()) or type(error).__name__

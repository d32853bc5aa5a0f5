"""The command line: both spellings, one line per mistake, no traceback."""

from __future__ import annotations

import argparse
import errno

import pytest

from trainrig.cli import Parser, describe, entry
from trainrig.errors import CheckpointError, nearest


def make():
    parser = Parser(prog="train")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--base_dir")
    group = parser.add_argument_group("group")
    group.add_argument("--log-every-n", dest="training.log", type=int)
    group.add_argument("--use-labels", action=argparse.BooleanOptionalAction)
    parser.add_argument("--quiet", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("words", "dest", "value"),
    [
        (["--max-steps", "3"], "max_steps", 3),
        (["--max_steps=3"], "max_steps", 3),
        (["--base-dir", "a_b-c"], "base_dir", "a_b-c"),
        (["--base_dir", "--no_x"], None, None),
        (["--log_every_n", "3"], "training.log", 3),
        (["--use_labels"], "use_labels", True),
        (["--no-use-labels"], "use_labels", False),
        (["--no_use_labels"], "use_labels", False),
    ],
)
def test_both_spellings(words, dest, value):
    if dest is None:
        with pytest.raises(SystemExit):
            make().parse_args(words)
        return
    assert vars(make().parse_args(words))[dest] == value


def test_a_flag_left_out_is_none():
    assert vars(make().parse_args([])) == {
        "max_steps": None,
        "base_dir": None,
        "training.log": None,
        "use_labels": None,
        "quiet": False,
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--max-step", "3"], "train: unknown argument --max-step; did you mean '--max-steps'?"),
        (["--max", "3"], "train: unknown argument --max"),
        (["--zzz=1"], "train: unknown argument --zzz; see --help"),
        (["stray"], "train: unknown argument stray"),
        (["--max-steps", "x"], "invalid int value: 'x'"),
        (["--max-steps"], "expected one argument"),
        (["--quiet=1"], "ignored explicit argument"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words, text, capsys):
    with pytest.raises(SystemExit) as caught:
        make().parse_args(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_subcommands_share_the_rules(capsys):
    parser = Parser(prog="verify")
    sub = parser.add_subparsers(dest="system", required=True)
    sub.add_parser("icl").add_argument("--golden-dir")
    assert parser.parse_args(["icl", "--golden_dir", "x"]).golden_dir == "x"
    with pytest.raises(SystemExit):
        parser.parse_args(["icl", "--goldn-dir", "x"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("unknown optimizer 'x'"), "unknown optimizer 'x'"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "ValueError"),
        (CheckpointError("broken"), "broken"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device"),
        (FileNotFoundError("a: no such file"), "a: no such file"),
        (ImportError("needs yaml"), "needs yaml"),
    ],
)
def test_user_errors_become_one_line(error, text, capsys):
    @entry
    def main(argv=None):
        raise error

    assert main([]) == 1
    assert capsys.readouterr().err == f"error: {text}\n"
    assert describe(error) == text


def test_bugs_keep_their_traceback_and_interrupts_say_what_to_do(capsys):
    @entry
    def main(argv=None):
        raise argv[0]

    with pytest.raises(ZeroDivisionError):
        main([ZeroDivisionError()])
    assert main([KeyboardInterrupt()]) == 130
    assert "the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_several_processes_are_refused_once_unless_a_script_takes_them(
    rank, lines, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert entry(lambda argv: 0)([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == lines
    assert not lines or "works in one process, and torchrun started 2" in said
    assert entry(team=True)(lambda argv: 0)([]) == 0


def test_nearest():
    assert nearest("sede", ["seed"]) == "; did you mean 'seed'?"
    assert nearest("zzz", ["seed"]) == ""
    assert nearest("x", []) == ""

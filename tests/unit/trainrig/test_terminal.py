"""Tables: coloured on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys

from trainrig.terminal import print_table

ROWS = [("one", "ok", "a [b] c"), ("two", "bad", "d")]


def test_a_pipe_gets_plain_columns_uncut(capsys):
    print_table(("what", "state", "found"), [("x", "ok", "word " * 100)])
    heading, line = capsys.readouterr().out.splitlines()
    assert heading == "what  state  found"
    assert line == ("x     ok     " + "word " * 100).rstrip()


def test_a_terminal_gets_colours_and_text_in_brackets_stays(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    print_table(("what", "state", "found"), ROWS)
    out = capsys.readouterr().out
    assert "a [b] c" in out
    assert "\x1b[32mok" in out
    assert "\x1b[31mbad" in out

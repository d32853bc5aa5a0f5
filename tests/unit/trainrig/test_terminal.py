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


def test_a_narrow_terminal_cuts_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    key, value, source = "training.key." + "k" * 20, "/data/" + "v" * 60, "configs/" + "f" * 30
    print_table(("key", "value", "from"), [(key, value, source)])
    out = "".join(capsys.readouterr().out.split())
    assert [out.count(letter) - (letter in "keyvaluefrom") for letter in "kv"] >= [20, 60]
    assert "…" not in out

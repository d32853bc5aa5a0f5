"""One file, one idea: modules, functions and scripts keep to a length that is read in one go."""

from __future__ import annotations

import ast

import pytest

MODULE_LINES, SCRIPT_LINES, FUNCTION_LINES = 350, 120, 50


def python_files(root, *folders):
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def code_lines(function):
    """The lines of a function's body, without its docstring."""
    first, *others = function.body
    if ast.get_docstring(function) is not None:
        return function.end_lineno - first.end_lineno if others else 0
    return function.end_lineno - first.lineno + 1


@pytest.mark.parametrize(
    ("folders", "limit"),
    [(("src",), MODULE_LINES), (("scripts", "analysis"), SCRIPT_LINES)],
    ids=["modules", "scripts"],
)
def test_files_are_short(repo_root, folders, limit):
    lengths = {
        str(path.relative_to(repo_root)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(repo_root, *folders)
    }
    assert lengths
    assert not {name: lines for name, lines in lengths.items() if lines > limit}


def test_functions_are_short(repo_root):
    functions = {
        f"{path.relative_to(repo_root)}:{node.lineno} {node.name}": code_lines(node)
        for path in python_files(repo_root, "src", "scripts", "analysis")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(functions) > 1000
    assert not {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES}

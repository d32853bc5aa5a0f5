"""Configuration: every mistake is refused in one place, naming key, value and what is accepted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainrig.config import (
    Traced,
    apply_overrides,
    diff,
    flatten,
    from_dict,
    load_config,
    parse_assignments,
    to_dict,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    lr: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.99)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"part.lr is {self.lr}; a positive number is expected")


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    name: str
    part: Part = field(default_factory=Part)
    steps: int = 10
    fast: bool = False
    mode: Literal["a", "b"] = "a"
    limit: int | None = None
    tags: list[str] = field(default_factory=list)


def build(**values) -> Whole:
    return from_dict(Whole, {"name": "x", **values}, "here")


def test_defaults_and_nesting():
    assert build(part={"lr": 0.5}) == Whole(name="x", part=Part(lr=0.5))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"stps": 3}, "here: unknown key 'stps'; did you mean 'steps'?"),
        ({"part": {"lrr": 3}}, "here: unknown key 'part.lrr'; did you mean 'lr'?"),
        ({"part": {"qqq": 3}}, "here: unknown key 'part.qqq'; accepted under part: betas, kwargs"),
        ({5: 3}, "here: unknown key '5'; accepted under the top level"),
        ({"part": 3}, "here: part is 3; a mapping of keys is expected"),
        ({"part": {"lr": -1}}, "here: part.lr is -1.0; a positive number is expected"),
        ({"part": {"lr": math.nan}}, "here: part.lr is nan; a positive number"),
        ({"part": {"lr": "fast"}}, "here: part.lr is 'fast'; a number is expected"),
        ({"part": {"lr": True}}, "here: part.lr is True; a number is expected"),
        ({"part": {"lr": None}}, "here: part.lr is None; a number is expected"),
        ({"part": {"lr": [1]}}, "a number is expected"),
        ({"part": {"betas": "0.9,x"}}, "part.betas is 'x'; a number is expected"),
        ({"part": {"kwargs": "no"}}, "part.kwargs is 'no'; a mapping is expected"),
        ({"part": {"kwargs": "{broken"}}, "part.kwargs is '{broken'; a mapping is expected"),
        ({"steps": True}, "steps is True; an integer is expected"),
        ({"steps": 1.5}, "steps is 1.5; an integer is expected"),
        ({"steps": "1.5"}, "steps is '1.5'; an integer is expected"),
        ({"steps": math.nan}, "steps is nan; an integer is expected"),
        ({"steps": math.inf}, "steps is inf; an integer is expected"),
        ({"steps": ""}, "steps is ''; an integer is expected"),
        ({"fast": 1}, "fast is 1; true or false is expected"),
        ({"fast": "maybe"}, "fast is 'maybe'; true or false is expected"),
        ({"mode": "c"}, "mode is 'c'; accepted: a, b"),
        ({"mode": ["a"]}, "accepted: a, b"),
        ({"limit": "many"}, "limit is 'many'; an integer is expected"),
        ({"name": 3}, "name is 3; text is expected"),
    ],
)
def test_mistakes(values, text):
    with pytest.raises(ValueError, match="here") as caught:
        from_dict(Whole, {"name": "x", **values}, "here")
    assert text in str(caught.value)
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_missing_key():
    with pytest.raises(ValueError, match="here: key 'name' is missing"):
        from_dict(Whole, {}, "here")


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"steps": "1e3"}, "steps", 1000),
        ({"steps": 5.0}, "steps", 5),
        ({"limit": "none"}, "limit", None),
        ({"limit": "null"}, "limit", None),
        ({"limit": "7"}, "limit", 7),
        ({"fast": "No"}, "fast", False),
        ({"tags": "a, b"}, "tags", ["a", "b"]),
        ({"tags": '["a b"]'}, "tags", ["a b"]),
        ({"tags": "7"}, "tags", ["7"]),
    ],
)
def test_texts_become_values(values, key, expected):
    value = getattr(build(**values), key)
    assert value == expected
    assert type(value) is type(expected)


@settings(deadline=None)  # a busy machine is no counterexample
@given(st.integers())
def test_integers_survive_text_exactly(number):
    assert build(steps=str(number)).steps == number


@settings(deadline=None)  # a busy machine is no counterexample
@given(st.floats(min_value=1e-300, allow_infinity=False))
def test_floats_survive_text_exactly(number):
    assert build(part={"lr": repr(number)}).part.lr == number


def test_overrides_of_nested_tuple_and_dict():
    config = apply_overrides(
        build(),
        {
            "part.lr": "1e-3",
            "part.betas": "[0.8, 0.9]",
            "part.kwargs": '{"eps": 1e-6, "amsgrad": true}',
            "steps": None,
        },
    )
    assert config.part == Part(lr=1e-3, betas=(0.8, 0.9), kwargs={"eps": 1e-6, "amsgrad": True})
    assert config.steps == 10
    config = apply_overrides(config, {"part.kwargs.eps": "1e-8", "part.kwargs.mode": "max"})
    assert config.part.kwargs == {"eps": 1e-8, "amsgrad": True, "mode": "max"}
    assert apply_overrides(config, {"part.kwargs.new.deep": "2"}).part.kwargs["new"] == {"deep": 2}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("prt.lr", "unknown key 'prt.lr'; did you mean 'part.lr'?"),
        ("lr", "unknown key 'lr'; did you mean 'part.lr'?"),
        ("part.l", "unknown key 'part.l'; did you mean 'lr'?"),
        ("part.lr.x", "unknown key 'part.lr.x'"),
        ("steps.x.y", "unknown key 'steps.x.y'"),
        ("", "unknown key ''"),
        ("part", "part is '3'; a mapping of keys is expected"),
        ("part..lr", "unknown key 'part..lr'"),
    ],
)
def test_bad_overrides(key, text):
    with pytest.raises(ValueError, match="command line") as caught:
        apply_overrides(build(), {key: "3"})
    assert text in str(caught.value)


def test_assignments():
    assert parse_assignments(["a.b=c=d", " x = 1 "]) == {"a.b": "c=d", "x": "1"}
    assert parse_assignments(None) == {}
    for bad in ("novalue", "=3", " =3"):
        with pytest.raises(ValueError, match="--set"):
            parse_assignments([bad])


def test_what_is_written_reads_back_equal():
    config = build(part={"betas": [0.5], "kwargs": {"a": [1, None]}}, limit=3)
    tree = json.loads(json.dumps(to_dict(config)))
    assert from_dict(Whole, tree, "file") == config
    assert diff(tree, to_dict(config)) == []


def test_diff_names_each_key_once():
    old, new = to_dict(build(limit=3)), to_dict(build(part={"lr": 1}, steps=11))
    assert diff(old, new) == ["limit: 3 -> None", "part.lr: 0.1 -> 1.0", "steps: 10 -> 11"]
    assert diff({"a": {}}, {"a": {"b": None}}) == ["a: {} -> (absent)", "a.b: (absent) -> None"]
    assert flatten({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1, "d": {}}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name: [", "not valid YAML"),
        (b"- 1", "a mapping of keys is expected"),
        (b"", "a mapping of keys is expected"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"name: x\nsteos: 3", "unknown key 'steos'; did you mean 'steps'?"),
        (b"name: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_bad_yaml_files(tmp_path, content, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.yaml") as caught:
        load_config(path, Whole)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: y\npart: {lr: 1e-3, betas: [1, 2]}\n")  # YAML 1.1 reads 1e-3 as text
    assert load_config(path, Whole) == Whole(name="y", part=Part(lr=1e-3, betas=(1.0, 2.0)))
    with pytest.raises(FileNotFoundError, match="no such configuration file"):
        load_config(tmp_path / "b.yaml", Whole)


def test_where_every_value_came_from():
    first = Whole(name="x", part=Part(kwargs={"a": 1}))
    traced = Traced(first).then(Whole(name="y", part=Part(lr=0.5)), {"name": "--name", "part": "f"})
    traced = traced.then(Whole(name="y", part=Part(lr=0.5), steps=3), {}, "follows from it")
    rows = {key: (value, origin) for key, value, origin in traced.rows()}
    assert rows["name"] == ('"y"', "--name")
    assert rows["part.lr"] == ("0.5", "f")  # a section that is named stands for its keys
    assert rows["steps"] == ("3", "follows from it")
    assert rows["fast"] == ("false", "default")
    assert list(rows) == ["name", "part.lr", "part.betas", "part.kwargs", *list(rows)[4:]]

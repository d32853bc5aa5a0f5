"""Configuration: file → frozen dataclass → code, with every mistake named.

A configuration is a tree of frozen dataclasses. Files and flags are read into plain dictionaries
first; ``from_dict`` is the only way in, so that an unknown key, a wrong type or a value out of
range is refused in one place, before anything is written.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from trainrig.errors import nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InitConfig:
    """What a run begins from, where that is another run; see ``trainrig.branching``.

    Attributes:
        run: ``RUN`` or ``RUN@STEP``, a run directory with checkpoints; None begins from the seed.
        state: take over optimizer, random states and the step's number too, not the weights alone.
    """

    run: str | None = None
    state: bool = False

    def __post_init__(self) -> None:
        """Check that the two go together."""
        if self.state and self.run is None:
            raise ValueError("init.state is true without init.run; name a run (--init-from RUN)")


def load_config(path: Path | str, cls: type[C]) -> C:
    """Read a YAML file into ``cls``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a YAML mapping, an unknown key (with the nearest known one) or a bad value.
    """
    return from_dict(cls, read_yaml(path), str(path))


def read_yaml(path: Path | str) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or no mapping.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        meant = sorted(str(p) for p in Path("configs").glob(f"*/{path.name}"))
        hint = f"did you mean {' or '.join(meant)}?" if meant else "give a YAML file"
        raise FileNotFoundError(f"{path}: no such configuration file; {hint}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path}: not valid YAML ({problem})") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: holds {type(values).__name__}; a mapping of keys is expected")
    return values


def from_dict(cls: type[C], values: Mapping[str, Any], where: str, prefix: str = "") -> C:
    """Build the dataclass ``cls`` from nested mappings; missing keys keep their defaults.

    Args:
        cls: a dataclass type; nested dataclass fields are built recursively.
        values: the keys given.
        where: the file or flag, for messages.
        prefix: dotted path of ``cls`` inside the whole configuration, for messages.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            hint = nearest(str(key), fields)
            raise ValueError(
                f"{where}: unknown key {prefix + str(key)!r}{hint or _accepted(prefix, fields)}"
            )
        arguments[key] = _coerce(hints[key], value, where, prefix + key)
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING
        if name not in arguments and no_default and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: key {prefix + name!r} is missing; it has no default")
    try:
        return cls(**arguments)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(where) else f"{where}: {message}") from None


def apply_overrides(config: C, overrides: Mapping[str, Any], where: str = "command line") -> C:
    """Return ``config`` with dotted keys replaced; ``None`` keeps the present value.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Small:
    ...     lr: float = 0.1
    >>> apply_overrides(Small(), {"lr": "1e-3"})
    Small(lr=0.001)
    """
    tree = to_dict(config)
    for dotted, value in overrides.items():
        if value is None:
            continue
        node, cls = tree, type(config)
        *parents, last = dotted.split(".")
        for depth, part in enumerate([*parents, last]):
            if not isinstance(node, dict) or (part not in node and dataclasses.is_dataclass(cls)):
                known = node if isinstance(node, dict) else ()
                hint = _same_leaf(dotted, tree) or nearest(part, known)
                prefix = "".join(f"{p}." for p in dotted.split(".")[:depth])
                raise ValueError(
                    f"{where}: unknown key {dotted!r}{hint or _accepted(prefix, known)}"
                )
            if depth < len(parents):
                fields = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
                cls = fields.get(part, dict)
                node = node.setdefault(part, {})
        node[last] = value if dataclasses.is_dataclass(cls) else _from_json(value, starts="")
    return from_dict(type(config), tree, where)


def _same_leaf(dotted: str, tree: Mapping[str, Any]) -> str:
    """Suggest the keys that end alike, where only the way to them is wrong."""
    leaf = dotted.rpartition(".")[2]
    found = [repr(key) for key in flatten(tree) if key.rpartition(".")[2] == leaf]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def parse_assignments(pairs: Sequence[str] | None, flag: str = "--set") -> dict[str, str]:
    """Split the ``key=value`` arguments of ``flag`` into a dictionary of texts.

    >>> parse_assignments(["optimizer.lr=1e-3"])
    {'optimizer.lr': '1e-3'}
    """
    assignments = {}
    for pair in pairs or []:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"{flag} {pair}: no '=' found; write {flag} key=value")
        assignments[key.strip()] = value.strip()
    return assignments


def to_dict(config: Any) -> dict[str, Any]:
    """Return the configuration as nested builtins, fit for JSON.

    Raises:
        ValueError: a value that JSON cannot hold, such as an object in a dictionary of arguments.
    """
    try:
        return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        keys = [k for k, v in flatten(dataclasses.asdict(config)).items() if not _is_plain(v)]
        raise ValueError(
            f"configuration: {', '.join(keys) or 'a value'} cannot be recorded ({error}); numbers, "
            "texts, lists and mappings are accepted"
        ) from None


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn ``{"a": {"b": 1}}`` into ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


@dataclasses.dataclass(frozen=True, slots=True)
class Traced(Generic[T]):
    """A configuration, and where each of its values came from.

    Attributes:
        config: the tree of dataclasses, or of mappings.
        origins: dotted key → file, flag or what else said it; a key not in it has its default.
        base: the configuration before flags, where there was a file or a preset.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Small:
    ...     lr: float = 0.1
    ...     steps: int = 5
    >>> Traced(Small()).then(Small(lr=0.2), {"lr": "--lr"}).rows()
    [('lr', '0.2', '--lr'), ('steps', '5', 'default')]
    """

    config: T
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base: T | None = None

    def then(self, config: T, named: Mapping[str, str], derived: str = "derived") -> Traced[T]:
        """Return what ``config`` became.

        Args:
            config: the next state.
            named: dotted keys that were given, each with where; a section stands for all its keys.
            derived: what to say of keys whose value changed without being given.
        """
        before, after = _flat(self.config), _flat(config)
        origins = dict(self.origins)
        for key, value in after.items():
            parts = key.split(".")
            given = [name for n in range(len(parts)) if (name := ".".join(parts[: n + 1])) in named]
            if given:
                origins[key] = named[given[-1]]
            elif key not in before or before[key] != value:
                origins[key] = derived
        return Traced(config, origins, self.base)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return ``(key, value, where from)`` of every value, in the order of the dataclasses."""
        return [
            (key, json.dumps(value, ensure_ascii=False), self.origins.get(key, "default"))
            for key, value in _flat(self.config).items()
        ]


def _flat(config: Any) -> dict[str, Any]:
    return flatten(config if isinstance(config, Mapping) else to_dict(config))


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one ``key: old -> new`` line for each dotted key that differs."""
    left, right = flatten(old), flatten(new)
    absent = "(absent)"
    return [
        f"{key}: {left.get(key, absent)} -> {right.get(key, absent)}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key, absent) != right.get(key, absent)
    ]


def _accepted(prefix: str, known: Any) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f"; accepted under {prefix.rstrip('.') or 'the top level'}: {names}"


def _coerce(hint: Any, value: Any, where: str, key: str) -> Any:
    """Return ``value`` as the annotated type, or raise naming the key, the value and the type."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_optional(hint, value, where, key)
    if origin is Literal:
        if value in get_args(hint):
            return value
        choices = ", ".join(map(str, get_args(hint)))
        raise ValueError(f"{where}: {key} is {value!r}; accepted: {choices}")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {key} is {value!r}; a mapping of keys is expected")
        return from_dict(hint, value, where, f"{key}.")
    if origin in (dict, Mapping) or hint is dict:
        value = _from_json(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {key} is {value!r}; a mapping is expected")
        return dict(value)
    if origin in (tuple, list):
        return _coerce_sequence(hint, value, where, key)
    return _coerce_scalar(hint, value, where, key)


def _coerce_optional(hint: Any, value: Any, where: str, key: str) -> Any:
    options = [option for option in get_args(hint) if option is not type(None)]
    nullable = len(options) < len(get_args(hint))
    if nullable and (value is None or (isinstance(value, str) and value.lower() in _NULLS)):
        return None
    for option in options[:-1]:
        try:
            return _coerce(option, value, where, key)
        except ValueError:
            continue
    return _coerce(options[-1], value, where, key)


def _coerce_sequence(hint: Any, value: Any, where: str, key: str) -> Any:
    value = _from_json(value)
    if isinstance(value, str):
        value = [part for part in value.replace(",", " ").split() if part]
    if not isinstance(value, list | tuple):
        value = [value]
    item = get_args(hint)[0] if get_args(hint) else Any
    items = [_coerce(item, one, where, key) for one in value]
    return tuple(items) if get_origin(hint) is tuple else items


_NULLS = {"none", "null", "~", ""}
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _coerce_scalar(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _BOOLS:
            return _BOOLS[value.lower()]
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            return float(value) if hint is float else _whole(value)
        except (TypeError, ValueError, OverflowError):
            pass
    elif hint is str and isinstance(value, str | Path):
        return str(value)
    name = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    raise ValueError(f"{where}: {key} is {value!r}; {name.get(hint, hint)} is expected")


def _whole(value: Any) -> int:
    """Return the integer that ``value`` is; "1e3" counts, and digits are never rounded."""
    try:
        number = int(value)
    except ValueError:
        number = int(float(value))
        value = float(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(f"{value} is not whole")
    return number


def _from_json(value: Any, starts: str = "[{") -> Any:
    if isinstance(value, str) and (not starts or value[:1] in starts):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value

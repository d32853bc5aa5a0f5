"""What an optimizer remembers, in a checkpoint and back: one contract for every class.

``state_dict()`` is saved as it is. Beside it go the attributes that have changed since the
optimizer was built (a counter, a list of past gradients, a dictionary by parameter), of nested
optimizers too. Tensors come back in the type they were saved in: torch's ``load_state_dict``
casts them to that of the parameter, a complex moment to a real one. At the first checkpoint a copy
is restored and stepped beside another copy; where they part, the run is refused before it has
anything to lose.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from trainrig.optim.needs import Needs, is_ordinary, needs_of, same_bits
from trainrig.optim.replica import (
    MACHINERY,
    inside,
    parameters_of,
    random_state_kept,
    replicate,
    surrogate,
    twin_of,
)

KIND = "__kind__"
PLAIN = (type(None), bool, int, float, str, bytes)
TORCH_PLAIN = (torch.dtype, torch.device, torch.Size, torch.memory_format)
CHECK_STEPS = 2


@dataclass(frozen=True, slots=True)
class _Built:
    """An optimizer as it was built: what a resumed process begins with."""

    blank: Optimizer
    attributes: dict[str, Any]
    class_attributes: dict[str, Any]


_BUILT: WeakKeyDictionary[Optimizer, _Built] = WeakKeyDictionary()
_CHECKED: WeakKeyDictionary[Optimizer, bool] = WeakKeyDictionary()


def prepare_optimizer(optimizer: Optimizer) -> Needs:
    """Find what an optimizer needs and remember how it was built; call it right after that.

    Raises:
        ValueError: a trial of its step fails.
    """
    remember(optimizer)
    return needs_of(optimizer)


def remember(optimizer: Optimizer) -> None:
    """Remember how an optimizer was built, before its first step; only the first call counts."""
    if not is_ordinary(optimizer) and optimizer not in _BUILT:
        same = {id(p): p for p in parameters_of(optimizer)}
        attributes = {key: _copied(value) for key, value in _collect(optimizer).items()}
        blank = replicate(optimizer, same)
        _BUILT[optimizer] = _Built(blank, attributes, _class_attributes(optimizer))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return all that an optimizer remembers, as tensors and builtins.

    Returns:
        Its ``state_dict()``, with ``attributes`` where some have changed since it was built.

    Raises:
        ValueError: something that changed cannot be saved.
    """
    state = optimizer.state_dict()
    if is_ordinary(optimizer):
        return state
    prepare_optimizer(optimizer)
    changed = _changes(optimizer)
    if not _CHECKED.get(optimizer):
        _check(optimizer, state, changed)
        _CHECKED[optimizer] = True
    return {**state, "attributes": changed} if changed else state


def load_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Take over what ``optimizer_state`` returned of an equal optimizer.

    Raises:
        ValueError, KeyError, ...: it belongs to another one.
    """
    if is_ordinary(optimizer):
        optimizer.load_state_dict(dict(saved))
        return
    if optimizer not in _BUILT:
        prepare_optimizer(optimizer)
    state = {key: value for key, value in saved.items() if key != "attributes"}
    exact, groups, memory = _standard(state), optimizer.param_groups, optimizer.state
    with warnings.catch_warnings(action="ignore"):  # of casts that are undone below
        optimizer.load_state_dict(_castable(state) if exact else state)
    if exact:
        _restore_exactly(optimizer, state)
    _keep_objects(optimizer, groups, memory)
    if "attributes" in saved:
        _restore_attributes(optimizer, saved["attributes"])


# --- state_dict ---


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return what each group of an optimizer is set to, as far as it is plain data."""
    return [
        {key: value for key, value in group.items() if key != "params" and _simple(value)}
        for group in optimizer.param_groups
    ]


def keep_settings(
    optimizer: Optimizer,
    own: Sequence[Mapping[str, Any]],
    theirs: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Give a loaded optimizer back the settings in which it was built unlike the saved one.

    What an optimizer has changed itself stays as it was saved.

    Args:
        optimizer: after ``load_optimizer``.
        own: ``settings_of`` it as it was built.
        theirs: the same of the saved one; None if unknown, and all settings are its own then.
    """
    for number, (group, settings) in enumerate(zip(optimizer.param_groups, own, strict=True)):
        for key, value in settings.items():
            if theirs is None or theirs[number].get(key, value) != value:
                group[key] = value


def _standard(state: Mapping[str, Any]) -> bool:
    """Say whether a ``state_dict`` is of torch's own form, by number of the parameter."""
    groups = state.get("param_groups")
    return (
        isinstance(state.get("state"), dict)
        and isinstance(groups, list)
        and all(isinstance(group, dict) and "params" in group for group in groups)
    )


def _simple(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, bool | int | float | None)


def _castable(state: dict[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` whose values torch can cast; the others are put in afterwards."""
    values = {
        key: {k: v if _simple(v) else None for k, v in of.items()} if isinstance(of, dict) else of
        for key, of in state["state"].items()
    }
    return {**state, "state": values}


def _restore_exactly(optimizer: Optimizer, state: dict[str, Any]) -> None:
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters_of(optimizer), strict=True):
        saved = state["state"].get(number)
        if isinstance(saved, dict) and isinstance(optimizer.state.get(parameter), dict):
            live = optimizer.state[parameter]
            for key, value in saved.items():
                live[key] = _exact(value, live.get(key), parameter.device)


def _keep_objects(
    optimizer: Optimizer, groups: list[dict[str, Any]], memory: dict[Any, Any]
) -> None:
    """Put what was loaded into the objects that were there: a nested optimizer may share them."""
    new_groups, new_memory = optimizer.param_groups, optimizer.state
    if new_groups is not groups:
        for old, new in zip(groups, new_groups, strict=True):
            _refill(old, new)
    if new_memory is not memory:
        _refill(memory, new_memory)
    for one in _optimizers(optimizer).values():
        if one.param_groups is new_groups:
            one.param_groups = groups
        if one.state is new_memory:
            one.state = memory  # type: ignore[assignment] # torch declares its own kind


def _refill(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    if old is not new:
        loaded = dict(new)
        old.clear()
        old.update(loaded)


def _exact(saved: Any, live: Any, device: torch.device) -> Any:
    if isinstance(saved, Tensor):
        if isinstance(live, Tensor):
            same = live.dtype == saved.dtype and live.shape == saved.shape
            return live if same else saved.to(live.device)
        return saved.to(device)
    if isinstance(saved, dict):
        return type(saved)((k, _exact(v, None, device)) for k, v in saved.items())
    if isinstance(saved, list | tuple) and type(saved) in (list, tuple):
        return type(saved)(_exact(v, None, device) for v in saved)
    return saved


# --- attributes ---


def _optimizers(optimizer: Optimizer) -> dict[str, Optimizer]:
    """Return an optimizer and those inside it, by their place in the order they are found."""
    found = [one for one in inside(optimizer) if isinstance(one, Optimizer)]
    return {str(i): one for i, one in enumerate(found)}


def _vouched(optimizer: Optimizer) -> bool:
    """Say whether a class saves and loads its state itself."""
    kind = type(optimizer)
    return (
        kind.state_dict is not Optimizer.state_dict
        and kind.load_state_dict is not Optimizer.load_state_dict
    )


def _collect(optimizer: Optimizer) -> dict[str, Any]:
    """Return attributes by ``place.name``, encoded; what cannot be is its text in ``Opaque``."""
    numbers = {id(p): i for i, p in enumerate(parameters_of(optimizer))}
    memory = {p.untyped_storage().data_ptr() for p in parameters_of(optimizer)} - {0}
    shared = {id(optimizer.state), id(optimizer.param_groups)}
    encode = _Encoder(numbers, memory)
    found: dict[str, Any] = {}
    for place, one in _optimizers(optimizer).items():
        for name, value in vars(one).items():
            if name in MACHINERY or isinstance(value, Optimizer):
                continue
            if name in ("state", "param_groups") and (id(value) in shared or _vouched(optimizer)):
                continue  # in the state_dict
            found[f"{place}.{name}"] = encode(value)
    for i, parameter in enumerate(parameters_of(optimizer)):
        for name, value in vars(parameter).items():
            if not name.startswith("_"):
                found[f"parameter {i}.{name}"] = encode(value)
    return found


class Opaque:
    """Stands for a value that cannot be encoded; equal to itself as long as it is that object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Compare by identity, or by pickled content."""
        if not isinstance(other, Opaque):
            return False
        if self.value is other.value:
            return True
        try:
            return pickle.dumps(self.value) == pickle.dumps(other.value)
        except Exception:  # of whatever object it is
            return False

    __hash__ = None  # type: ignore[assignment] # as any mutable value


class _Encoder:
    """Turns values into tensors and builtins; parameters become their numbers."""

    def __init__(self, numbers: Mapping[int, int], memory: set[int]) -> None:
        self.numbers, self.memory = numbers, memory

    def __call__(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, list):
            return [self(v) for v in value] if type(value) is list else Opaque(value)
        if isinstance(value, dict) and type(value) in (dict, OrderedDict, defaultdict):
            items = [(self(k), self(v)) for k, v in value.items()]
            return {KIND: "dict", "items": items}
        if type(value) is tuple:
            return {KIND: "tuple", "items": [self(v) for v in value]}
        if type(value) in (set, frozenset):
            try:
                return {KIND: "set", "items": [self(v) for v in sorted(value)]}
            except TypeError:
                return Opaque(value)
        if type(value) is deque:
            return {KIND: "deque", "items": [self(v) for v in value]}
        return self._special(value)

    def _tensor(self, value: Tensor) -> Any:
        if id(value) in self.numbers:
            return {KIND: "parameter", "number": self.numbers[id(value)]}
        if value.layout == torch.strided and value.untyped_storage().data_ptr() in self.memory:
            return {KIND: "view"}
        value = value.detach()
        return value if value.device.type == "cpu" else {KIND: "on device", "values": value}

    def _special(self, value: Any) -> Any:
        if isinstance(value, complex):
            return {KIND: "complex", "parts": (value.real, value.imag)}
        if isinstance(value, torch.Generator):
            return {KIND: "generator", "state": value.get_state()}
        if isinstance(value, np.random.Generator):
            return {KIND: "numpy generator", "state": value.bit_generator.state}
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            return {KIND: "array", "values": torch.from_numpy(value.copy())}
        if isinstance(value, np.generic) and isinstance(value.item(), PLAIN):
            return {KIND: "number", "value": value.item(), "dtype": str(value.dtype)}
        if isinstance(value, TORCH_PLAIN):
            return {KIND: "torch", "text": str(value)}
        return Opaque(value)


def _changes(optimizer: Optimizer) -> dict[str, Any]:
    """Return the encoded attributes that are not as they were built.

    Raises:
        ValueError: one that is no plain data, or an attribute of the class.
    """
    built, kind = _BUILT[optimizer], type(optimizer)
    for name, value in _class_attributes(optimizer).items():
        if not _same(value, built.class_attributes.get(name)):
            raise ValueError(
                f"optimizer {kind.__name__}: changes the class attribute {name!r}, which no "
                "checkpoint holds; keep it in the optimizer itself"
            )
    changed = {}
    for key, value in _collect(optimizer).items():
        if key in built.attributes and _same(value, built.attributes[key]):
            continue
        opaque = _opaque_in(value)
        if opaque is None:
            changed[key] = _copied(value)
        elif not _vouched(optimizer):
            raise ValueError(
                f"optimizer {kind.__name__}: keeps a {type(opaque.value).__name__} in "
                f"{key.partition('.')[2]!r}, which changed since it was built and cannot be saved; "
                "keep numbers, texts, tensors, or lists and dictionaries of them"
            )
    return changed


def _class_attributes(optimizer: Optimizer) -> dict[str, Any]:
    encode = _Encoder({}, set())
    found = {}
    for kind in type(optimizer).__mro__:
        if kind is Optimizer:
            break
        for name, value in vars(kind).items():
            if name.startswith("__") or callable(value):
                continue
            encoded = encode(value)
            if _opaque_in(encoded) is None:
                found[f"{kind.__name__}.{name}"] = _copied(encoded)
    return found


def _opaque_in(value: Any) -> Opaque | None:
    if isinstance(value, Opaque):
        return value
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    return next((found for part in parts if (found := _opaque_in(part))), None)


def _copied(value: Any) -> Any:
    """Return encoded data that later steps do not change."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copied(v) for v in value]
    if isinstance(value, tuple):
        return tuple(_copied(v) for v in value)
    return value


def _same(one: Any, other: Any) -> bool:
    """Say whether encoded data are equal, tensors bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return same_bits(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    return bool(one == other)


def _restore_attributes(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    owners: dict[str, Any] = dict(_optimizers(optimizer))
    parameters = parameters_of(optimizer)
    owners |= {f"parameter {i}": p for i, p in enumerate(parameters)}
    for key, value in saved.items():
        place, _, name = key.partition(".")
        owner = owners[place]
        decoded = _decode(value, getattr(owner, name, None), parameters)
        setattr(owner, name, decoded)


def _decode(value: Any, live: Any, parameters: list[Tensor]) -> Any:  # noqa: C901 - a table
    if isinstance(value, Tensor):
        return value.clone().cpu()
    if isinstance(value, list):
        return [_decode(v, None, parameters) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value[KIND]
    if kind == "on device":
        return value["values"].clone().to(parameters[0].device)
    if kind == "complex":
        return complex(*value["parts"])
    if kind == "parameter":
        return parameters[value["number"]]
    if kind == "tuple":
        return tuple(_decode(v, None, parameters) for v in value["items"])
    if kind == "set":
        return {_decode(v, None, parameters) for v in value["items"]}
    if kind == "deque":
        length = live.maxlen if isinstance(live, deque) else None
        return deque((_decode(v, None, parameters) for v in value["items"]), length)
    if kind == "dict":
        items = [tuple(_decode(part, None, parameters) for part in pair) for pair in value["items"]]
        if isinstance(live, dict):  # of its own kind, with its own factory
            live.clear()
            live.update(items)
            return live
        return dict(items)
    if kind == "generator":
        live.set_state(value["state"])
        return live
    if kind == "numpy generator":
        live.bit_generator.state = value["state"]
        return live
    if kind == "array":
        return value["values"].numpy()
    if kind == "number":
        return np.dtype(value["dtype"]).type(value["value"])
    if kind == "torch":
        return live
    raise ValueError(f"an attribute of kind {kind!r} cannot be restored")


# --- the check ---


def _check(optimizer: Optimizer, state: dict[str, Any], changed: dict[str, Any]) -> None:
    """Restore a copy, step it beside another copy, and compare.

    Raises:
        ValueError: the state cannot be read back, or the restored copy steps otherwise.
    """
    name = type(optimizer).__name__
    try:
        saved = _through_file({**state, "attributes": changed} if changed else state)
    except Exception as error:  # of pickling or of safe loading, by whatever is in there
        text = " ".join(str(error).split())
        kind = re.search(r"Unsupported (?:global|class|operand)\S* (?:GLOBAL )?(\S+)", text)
        reason = f"it holds {kind[1]}" if kind else text[:200]
        raise ValueError(
            f"optimizer {name}: its state cannot be saved ({reason}); keep tensors, numbers, "
            "texts, or lists and dictionaries of them"
        ) from None
    device = parameters_of(optimizer)[0].device
    with random_state_kept(device), warnings.catch_warnings(action="ignore"):
        try:
            difference = _difference(optimizer, saved)
        except Exception as error:  # of a stranger's load_state_dict or step
            difference = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if difference:
        raise ValueError(
            f"optimizer {name}: a run with it could not be resumed exactly, since a copy restored "
            f"from its state behaves otherwise ({difference}); let state_dict() hold all that it "
            "remembers"
        )


def _through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def _difference(optimizer: Optimizer, saved: dict[str, Any]) -> str:
    """Return what differs after steps of a restored copy and of a plain one; empty if nothing."""
    parameters, needs = parameters_of(optimizer), needs_of(optimizer)
    built = _BUILT[optimizer]
    pairs = []
    for source in (built.blank, optimizer):
        twins = [twin_of(p) for p in parameters]
        if source is built.blank:
            for twin in twins:
                vars(twin).clear()  # a resumed process attaches what was saved, and nothing else
        copied = replicate(source, dict(zip(map(id, parameters), twins, strict=True)))
        if source is built.blank:
            _BUILT[copied] = built  # it needs no trial of its own
            load_optimizer(copied, saved)
        pairs.append((copied, twins))
    for copied, twins in pairs:
        _steps(copied, list(twins), needs)
    ones, others = (twins for _, twins in pairs)
    for i, (a, b) in enumerate(zip(ones, others, strict=True)):
        if not same_bits(a, b):
            return f"parameter {i} takes another step"
    memories = [_memory(copied) for copied, _ in pairs]
    for key in memories[0].keys() | memories[1].keys():
        if not _same(*(memory.get(key) for memory in memories)):
            return f"after two more steps it remembers another {key}"
    return ""


def _memory(optimizer: Optimizer) -> dict[str, Any]:
    """Return state and settings of an optimizer and those inside it, encoded; by name."""
    numbers = {id(p): i for i, p in enumerate(parameters_of(optimizer))}
    encode = _Encoder(numbers, set())
    found = {}
    for one in _optimizers(optimizer).values():
        name = type(one).__name__
        for group, settings in enumerate(one.param_groups):
            for key, value in settings.items():
                if key != "params":
                    found[f"{key} of {name}'s group {group}"] = encode(value)
        for owner, values in one.state.items():
            place = f"parameter {numbers.get(id(owner))}" if isinstance(owner, Tensor) else owner
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                found[f"{key} of {name}'s {place}"] = encode(value)
    return {key: value for key, value in found.items() if _opaque_in(value) is None}


def _steps(optimizer: Optimizer, parameters: list[Tensor], needs: Needs) -> None:
    evaluate: Callable[[], Tensor] = surrogate(
        parameters, create_graph=needs.create_graph, contiguous=needs.contiguous
    )
    torch.manual_seed(0)
    if needs.switches:
        optimizer.train()  # type: ignore[attr-defined] # that is what `switches` says
    for _ in range(CHECK_STEPS):
        for p in parameters:
            p.grad = None
        if needs.gradient_first:
            evaluate()
        optimizer.step(*([evaluate] if needs.closure else []))  # type: ignore[arg-type] # None or one


__all__ = ["load_optimizer", "optimizer_state", "prepare_optimizer", "remember"]

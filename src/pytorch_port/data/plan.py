"""What a sequence consists of, once, for the exact generator and the vectorised sampler alike.

A sequence is one ``Branch`` of a ``SequencePlan``: one or two ``Part``s laid one after the other,
the query last. L items, S shots, W ways.

Source: icl reference ``datasets/data_generators.py:SeqGenerator.get_*_seq`` (revision eba75a4).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pytorch_port.data.labels import Labeling, bursty_labelings, parse_labeling
from pytorch_port.data.partition import ClassPartition, ClassType
from trainrig.errors import nearest

NON_BURSTY_TYPES = ("zipfian", "common_uniform", "common_no_support")


@dataclass(frozen=True, slots=True)
class Part:
    """Items drawn together: no drawing of a class repeats within a part.

    Attributes:
        draw: ``random`` (independent classes), ``unique`` (all classes differ), ``no_support``
            (the query's class appears nowhere else) or ``fewshot`` (W classes, S times each, and
            a query from one of them).
        length: items, the query included where the part has one.
    """

    draw: Literal["random", "unique", "no_support", "fewshot"]
    class_type: ClassType
    length: int
    labeling: Labeling
    shots: int = 0
    ways: int = 0
    grouped: bool = False

    def check(self, partition: ClassPartition, where: str) -> None:
        """Raise ``ValueError`` where this part cannot be drawn from ``partition``."""
        classes = len(partition.classes(self.class_type))
        if self.length < 1 or (self.draw == "fewshot" and min(self.shots, self.ways) < 1):
            raise ValueError(f"{where}: length, shots and ways must be >= 1, not {self!r}")
        if self.draw != "fewshot" and self.labeling.kind == "unfixed":
            raise ValueError(
                f"{where}: labeling 'unfixed' has no meaning for {self.draw} sequences; "
                "use 'ordered' or 'original'"
            )
        if self.draw == "no_support" and self.labeling.polysemous:
            raise ValueError(f"{where}: polysemy is not defined; use 'ordered' or 'orderedK'")
        needed = {"unique": self.length, "no_support": 2 if self.length > 1 else 1}
        if classes < needed.get(self.draw, 1):
            raise ValueError(
                f"{where}: {classes} {self.class_type} classes for a {self.draw} part of "
                f"{self.length} items; at least {needed[self.draw]} are needed"
            )


@dataclass(frozen=True, slots=True)
class Branch:
    """One kind of sequence; ``mixed_up`` shuffles all its items but the query."""

    probability: float
    parts: tuple[Part, ...]
    mixed_up: bool = False


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """All kinds of sequence that one method call can give.

    Attributes:
        method: ``get_bursty_seq`` etc.
        length: L.
        branches: every kind, impossible ones (probability 0) included.
        thresholds: cumulative limits for the reference's one or two uniform draws; see ``choose``.
        randomly_generate_rare: rare classes show a fresh random binary image per part.
    """

    method: str
    length: int
    branches: tuple[Branch, ...]
    thresholds: tuple[float, ...] = ()
    randomly_generate_rare: bool = False

    def choose(self, uniform: Callable[[], float]) -> Branch:
        """Pick a branch with the reference's draws: none, one (mixed) or one or two (bursty)."""
        if not self.thresholds:
            return self.branches[0]
        gate, *inner = self.thresholds
        if uniform() >= gate:
            return self.branches[0]
        if not inner:
            return self.branches[1]
        u = uniform()
        return self.branches[1 + sum(u >= limit for limit in inner)]

    @property
    def possible(self) -> tuple[Branch, ...]:
        """The branches that can occur; rounding dust below 1e-12 is none."""
        return tuple(branch for branch in self.branches if branch.probability > 1e-12)

    @property
    def largest_part(self) -> int:
        """The most items that one class may fill in one part, which bounds its drawings."""
        parts = [p for b in self.possible for p in b.parts if p.draw != "unique"]
        return max((p.length for p in parts), default=1)

    def label_bound(self, partition: ClassPartition) -> int:
        """Return the exclusive upper bound of all labels, to compare with the head's size."""
        return max(
            part.labeling.upper_bound(partition, part.class_type, part.ways)
            for branch in self.possible
            for part in branch.parts
        )


def _random(class_type: ClassType, length: int, labeling: str, *, unique: bool = False) -> Part:
    return Part("unique" if unique else "random", class_type, length, parse_labeling(labeling))


def _fewshot(
    class_type: ClassType, shots: int, ways: int, labeling: str, grouped: bool = False
) -> Part:
    kind = parse_labeling(labeling)
    return Part("fewshot", class_type, shots * ways + 1, kind, shots, ways, grouped)


def random_plan(
    partition: ClassPartition,
    class_type: ClassType,
    seq_len: int,
    labeling: str = "ordered",
    randomly_generate_rare: bool = False,
    all_unique: bool = False,
) -> SequencePlan:
    """Independent classes (or, ``all_unique``, distinct ones)."""
    part = _random(class_type, seq_len, labeling, unique=all_unique)
    return _single("get_random_seq", part, randomly_generate_rare)


def no_support_plan(
    partition: ClassPartition,
    class_type: ClassType,
    seq_len: int,
    all_unique: bool = True,
    labeling: str = "ordered",
    randomly_generate_rare: bool = False,
) -> SequencePlan:
    """The query's class is absent from the context (``all_unique``: all classes differ)."""
    part = _random(class_type, seq_len, labeling, unique=all_unique)
    if not all_unique:
        part = replace(part, draw="no_support")
    return _single("get_no_support_seq", part, randomly_generate_rare)


def fewshot_plan(
    partition: ClassPartition,
    class_type: ClassType,
    shots: int,
    ways: int,
    labeling: str = "unfixed",
    randomly_generate_rare: bool = False,
    grouped: bool = False,
) -> SequencePlan:
    """S examples of each of W classes drawn *with* replacement, then a query from one of them.

    Deviation: ``labeling`` may be ``orderedK`` too (index + K), which the reference refuses here,
    so that bursty sequences with polysemy can have common few-shot problems.
    """
    part = _fewshot(class_type, shots, ways, labeling, grouped)
    return _single("get_fewshot_seq", part, randomly_generate_rare)


def _single(method: str, part: Part, randomly_generate_rare: bool) -> SequencePlan:
    return SequencePlan(
        method,
        part.length,
        (Branch(1.0, (part,)),),
        randomly_generate_rare=randomly_generate_rare,
    )


def mixed_plan(partition: ClassPartition, shots: int, ways: int, p_fewshot: float) -> SequencePlan:
    """Few-shot rare with probability ``p_fewshot``, else independent common classes."""
    p_fewshot = _probability("p_fewshot", p_fewshot)
    length = shots * ways + 1
    branches = (
        Branch(1 - p_fewshot, (_random("common", length, "ordered"),)),
        Branch(p_fewshot, (_fewshot("rare", shots, ways, "unfixed"),)),
    )
    return SequencePlan("get_mixed_seq", length, branches, (p_fewshot,))


def bursty_plan(  # noqa: PLR0913 - the reference's signature
    partition: ClassPartition,
    seq_len: int,
    shots: int,
    ways: int,
    p_bursty: float,
    p_bursty_common: float = 0.0,
    p_bursty_zipfian: float = 0.0,
    non_bursty_type: str = "common_uniform",
    labeling_common: str = "ordered",
    labeling_rare: str = "unfixed",
    randomly_generate_rare: bool = False,
    grouped: bool = False,
) -> SequencePlan:
    """A few-shot problem hidden among other items with probability ``p_bursty``, else none."""
    rest = seq_len - shots * ways - 1
    if rest < 0:
        raise ValueError(
            f"seq_len: {seq_len} items cannot hold {shots} shots of {ways} ways and a query; "
            f"give at least {shots * ways + 1}"
        )
    p_bursty = _probability("p_bursty", p_bursty)
    p_common = _probability("p_bursty_common", p_bursty_common)
    p_zipfian = _probability("p_bursty_zipfian", p_bursty_zipfian)
    if p_zipfian + p_common > 1 + 1e-9:
        raise ValueError(
            f"p_bursty_zipfian + p_bursty_common: {p_zipfian} + {p_common} exceeds 1; lower one"
        )
    if non_bursty_type not in NON_BURSTY_TYPES:
        hint = nearest(non_bursty_type, NON_BURSTY_TYPES)
        raise ValueError(
            f"non_bursty_type: unknown {non_bursty_type!r}{hint}; "
            f"accepted: {', '.join(NON_BURSTY_TYPES)}"
        )
    common, rare = bursty_labelings(labeling_common, labeling_rare, partition.n_rare_classes)

    def bursty(
        p: float, kind: ClassType, labeling: str, rest_kind: ClassType, rest_labeling: str
    ) -> Branch:
        burst = _fewshot(kind, shots, ways, labeling, grouped)
        remainder = (_random(rest_kind, rest, rest_labeling),) if rest else ()
        return Branch(p_bursty * p, (*remainder, burst), mixed_up=True)

    plain = _random("zipfian" if non_bursty_type == "zipfian" else "common", seq_len, common)
    if non_bursty_type == "common_no_support":
        plain = replace(plain, draw="no_support")
    branches = (
        Branch(1 - p_bursty, (plain,)),
        bursty(p_zipfian, "zipfian", rare, "zipfian", rare),
        bursty(p_common, "common", common, "rare", rare),
        bursty(1 - p_zipfian - p_common, "rare", rare, "common", common),
    )
    limits = (p_bursty, p_zipfian, p_common + p_zipfian)
    return SequencePlan("get_bursty_seq", seq_len, branches, limits, randomly_generate_rare)


PLANS: dict[str, Callable[..., SequencePlan]] = {
    "get_bursty_seq": bursty_plan,
    "get_no_support_seq": no_support_plan,
    "get_fewshot_seq": fewshot_plan,
    "get_random_seq": random_plan,
    "get_mixed_seq": mixed_plan,
}


def make_plan(partition: ClassPartition, method: str, args: Mapping[str, Any]) -> SequencePlan:
    """Build and check the plan of one generator call.

    Args:
        partition: the classes to draw from.
        method: ``get_bursty_seq``, ``get_no_support_seq``, ``get_fewshot_seq``,
            ``get_random_seq`` or ``get_mixed_seq``.
        args: its keyword arguments.

    Raises:
        ValueError: an unknown method, argument, class type or labelling, or a sequence that
            ``partition`` cannot supply.
    """
    if method not in PLANS:
        hint = nearest(method, PLANS)
        raise ValueError(f"method: unknown {method!r}{hint}; accepted: {', '.join(PLANS)}")
    parameters = dict(list(inspect.signature(PLANS[method]).parameters.items())[1:])
    for name in args:
        if name not in parameters:
            raise ValueError(
                f"{method}: unknown argument {name!r}{nearest(name, parameters)}; "
                f"accepted: {', '.join(parameters)}"
            )
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in args]
    if missing:
        raise ValueError(f"{method}: arguments {missing} are missing; give them")
    plan = PLANS[method](partition, **args)
    for branch in plan.possible:
        for part in branch.parts:
            part.check(partition, method)
    return plan


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is no probability; give a number in [0, 1]")
    return float(value)

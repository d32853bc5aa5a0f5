"""How class positions become labels: the reference's labelling names, parsed and bounded.

Source: icl reference ``datasets/data_generators.py`` (revision eba75a4), ``labeling`` arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pytorch_port.data.partition import ClassPartition, ClassType
from trainrig.errors import nearest

PlainKind = Literal["ordered", "original", "unfixed"]
PLAIN: tuple[PlainKind, ...] = get_args(PlainKind)
_PATTERN = re.compile(r"ordered(?P<start>\d+)?(?:_polysemy(?P<factor>\d+))?")
_NAMES = (*PLAIN, "orderedK", "orderedK_polysemyX")


@dataclass(frozen=True, slots=True)
class Labeling:
    """A parsed labelling.

    Attributes:
        kind: ``ordered`` = position of the class among rare + common + holdout; ``original`` =
            class id; ``unfixed`` = number of the way (few-shot only); ``shifted`` = index in the
            class type's own list times ``factor``, plus ``start``, plus a random offset below
            ``factor`` (``orderedK`` and ``orderedK_polysemyX``).
        start: K.
        factor: X, labels per class; 1 without polysemy.
        polysemous: whether a random offset is drawn (the reference draws it even for X = 1).
    """

    kind: PlainKind | Literal["shifted"]
    start: int = 0
    factor: int = 1
    polysemous: bool = False

    def upper_bound(self, partition: ClassPartition, class_type: ClassType, ways: int) -> int:
        """Return the exclusive upper bound of the labels of one class type."""
        if self.kind == "unfixed":
            return ways
        if self.kind == "original":
            return int(partition.classes(class_type).max()) + 1
        count = partition.count(class_type)
        if self.kind == "ordered":
            return partition.label_start(class_type) + count
        return self.start + count * self.factor


def parse_labeling(name: str) -> Labeling:
    """Read ``ordered``, ``original``, ``unfixed``, ``orderedK`` or ``orderedK_polysemyX``.

    Raises:
        ValueError: anything else, polysemy without a start, or zero labels per class.
    """
    for kind in PLAIN:
        if name == kind:
            return Labeling(kind)
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(
            f"labeling: unknown {name!r}{nearest(name, PLAIN)}; accepted: {', '.join(_NAMES)}"
        )
    start, factor = match["start"], match["factor"]
    if start is None:
        raise ValueError(
            f"labeling: {name!r} lacks the first label; "
            f"give 'ordered0_polysemy{factor}', or use it as labeling_rare of a bursty sequence"
        )
    if factor is not None and int(factor) < 1:
        raise ValueError(f"labeling: {name!r} gives a class no label; polysemy must be >= 1")
    return Labeling("shifted", int(start), int(factor or 1), factor is not None)


def bursty_labelings(labeling_common: str, labeling_rare: str, n_rare: int) -> tuple[str, str]:
    """Resolve ``labeling_rare="ordered_polysemyX"``: X labels per rare class, common ones after.

    Returns:
        ``(labeling_common, labeling_rare)`` with explicit starts.
    """
    match = re.fullmatch(r"ordered_polysemy(\d+)", labeling_rare)
    if match is None:
        return labeling_common, labeling_rare
    factor = int(match[1])
    return f"ordered{n_rare * factor}", f"ordered0_polysemy{factor}"

"""Which classes are rare, common and held out, and how often each is drawn.

Source: icl reference ``datasets/data_generators.py:SeqGenerator.__init__`` (revision eba75a4).
N classes in the data, M = n_rare + n_common classes that training may show.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from trainrig.errors import nearest

ClassType = Literal["rare", "common", "holdout", "zipfian"]
CLASS_TYPES: tuple[ClassType, ...] = get_args(ClassType)
ORDERING_SEED = 1337


def class_ordering(
    n_data_classes: int, preserve_ordering_every_n: int | None = None, seed: int = ORDERING_SEED
) -> np.ndarray:
    """Return the fixed shuffle of class ids that the partition is cut from.

    Args:
        n_data_classes: N, classes in the data; ids are 0..N-1.
        preserve_ordering_every_n: keep runs of this many neighbours together (8 for the flips and
            rotations of one drawing); ``None`` shuffles single classes.
        seed: of ``numpy.random.default_rng``; the reference always uses 1337.

    Returns:
        int64 (N,).

    Raises:
        ValueError: N < 1, or not a multiple of ``preserve_ordering_every_n``.
    """
    if n_data_classes < 1:
        raise ValueError(f"n_data_classes: {n_data_classes} classes; at least 1 is needed")
    rng = np.random.default_rng(seed)
    if not preserve_ordering_every_n:
        return rng.choice(n_data_classes, size=n_data_classes, replace=False)
    if preserve_ordering_every_n < 0 or n_data_classes % preserve_ordering_every_n:
        raise ValueError(
            f"preserve_ordering_every_n: {preserve_ordering_every_n} does not divide "
            f"{n_data_classes} classes; give a divisor or None"
        )
    n_blocks = n_data_classes // preserve_ordering_every_n
    blocks = rng.choice(n_blocks, size=n_blocks, replace=False)
    ids = np.arange(n_data_classes).reshape(n_blocks, preserve_ordering_every_n)
    return ids[blocks].reshape(n_data_classes)


def zipf_weights(n_classes: int, exponent: float) -> np.ndarray:
    """Return weights of positions i proportional to 1 / (n_classes - i)^exponent, float64.

    The last position is the most frequent one; exponent 0 is uniform.
    """
    weights = np.array([1 / rank**exponent for rank in range(n_classes, 0, -1)])
    return weights / np.sum(weights)


class ClassPartition:
    """Rare, common and holdout classes with their sampling weights.

    Args:
        n_data_classes: N, classes in the data; ids are 0..N-1.
        n_rare_classes: the first classes of the ordering.
        n_common_classes: the next ones.
        n_holdout_classes: the *last* ones of the ordering, so that the holdout set does not
            depend on the other two counts.
        zipf_exponent: of the weights over rare followed by common; 0 is uniform.
        use_zipf_for_common_rare: draw "rare" and "common" with their slice of the Zipf weights
            instead of uniformly.
        preserve_ordering_every_n: see ``class_ordering``.
        ordering_seed: see ``class_ordering``.

    Attributes:
        rare, common, holdout, non_holdout: int64 arrays of class ids.
        zipf_weights: float64 (M,), of ``non_holdout``.
        n_classes: rare + common + holdout.

    Raises:
        ValueError: counts that are negative, sum to more than N, or leave nothing to train on.
    """

    def __init__(
        self,
        n_data_classes: int,
        n_rare_classes: int,
        n_common_classes: int,
        n_holdout_classes: int = 0,
        *,
        zipf_exponent: float = 1.0,
        use_zipf_for_common_rare: bool = False,
        preserve_ordering_every_n: int | None = None,
        ordering_seed: int = ORDERING_SEED,
    ) -> None:
        counts = {
            "n_rare_classes": n_rare_classes,
            "n_common_classes": n_common_classes,
            "n_holdout_classes": n_holdout_classes,
        }
        _check_counts(n_data_classes, counts)
        self.n_data_classes = n_data_classes
        self.n_rare_classes = n_rare_classes
        self.n_common_classes = n_common_classes
        self.n_holdout_classes = n_holdout_classes
        self.n_classes = n_rare_classes + n_common_classes + n_holdout_classes
        self.n_non_holdout = n_rare_classes + n_common_classes
        self.zipf_exponent = float(zipf_exponent)
        self.use_zipf_for_common_rare = use_zipf_for_common_rare
        self.preserve_ordering_every_n = preserve_ordering_every_n

        order = class_ordering(n_data_classes, preserve_ordering_every_n, ordering_seed)
        self.rare = order[:n_rare_classes]
        self.common = order[n_rare_classes : self.n_non_holdout]
        self.holdout = order[n_data_classes - n_holdout_classes :]
        self.non_holdout = order[: self.n_non_holdout]
        self.zipf_weights = zipf_weights(self.n_non_holdout, self.zipf_exponent)
        self._classes = {
            "rare": self.rare,
            "common": self.common,
            "holdout": self.holdout,
            "zipfian": self.non_holdout,
        }
        self._weights = {name: self._weights_of(name) for name in CLASS_TYPES}
        self._cumulative = {name: cumulative(w) for name, w in self._weights.items()}

    def _weights_of(self, class_type: ClassType) -> np.ndarray:
        if class_type == "zipfian":
            return self.zipf_weights
        if self.use_zipf_for_common_rare and class_type in ("rare", "common"):
            start = self.label_start(class_type)
            part = self.zipf_weights[start : start + self.count(class_type)]
            # Deviation: a copy. The reference normalises a view in place, so that its next
            # Zipfian draw fails with "probabilities do not sum to 1".
            return part / np.sum(part)
        n = self.count(class_type)
        return np.full(n, 1 / n) if n else np.zeros(0)

    def classes(self, class_type: str) -> np.ndarray:
        """Return the class ids of one class type, in partition order.

        Raises:
            ValueError: an unknown class type, or one without classes.
        """
        if class_type not in self._classes:
            known = ", ".join(CLASS_TYPES)
            raise ValueError(
                f"class_type: unknown {class_type!r}{nearest(class_type, CLASS_TYPES)}; "
                f"accepted: {known}"
            )
        if not len(self._classes[class_type]):
            raise ValueError(
                f"class_type: {class_type!r} has no classes here; raise its count or choose another"
            )
        return self._classes[class_type]

    def count(self, class_type: ClassType) -> int:
        """Return the number of classes of one type."""
        return len(self._classes[class_type])

    def weights(self, class_type: ClassType) -> np.ndarray:
        """Return float64 probabilities aligned with ``classes(class_type)``."""
        return self._weights[class_type]

    def cumulative(self, class_type: ClassType) -> np.ndarray:
        """Return the running sum of ``weights(class_type)``, ending in exactly 1."""
        return self._cumulative[class_type]

    def label_start(self, class_type: ClassType) -> int:
        """Return where the class type starts within rare + common + holdout."""
        starts = {"common": self.n_rare_classes, "holdout": self.n_non_holdout}
        return starts.get(class_type, 0)

    @property
    def order(self) -> np.ndarray:
        """Class ids of rare + common + holdout, int64 (n_classes,): position -> class id."""
        return np.concatenate([self.non_holdout, self.holdout])


def cumulative(weights: np.ndarray) -> np.ndarray:
    """Return the cumulative distribution exactly as ``RandomState.choice`` computes it."""
    total = weights.cumsum()
    return total / total[-1] if len(total) else total


def _check_counts(n_data_classes: int, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name}: {count} is negative; give a count >= 0")
    total = sum(counts.values())
    if total > n_data_classes:
        text = " + ".join(str(count) for count in counts.values())
        raise ValueError(
            f"{' + '.join(counts)}: {text} = {total} classes, but the data have {n_data_classes}; "
            "lower the counts or use more data"
        )
    if counts["n_rare_classes"] + counts["n_common_classes"] < 1:
        raise ValueError(
            "n_rare_classes + n_common_classes: 0 classes to train on; give at least 1"
        )

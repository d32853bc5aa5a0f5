"""What an item of a sequence looks like: a symbol, an image, one of many drawings, or indices.

Each source turns a part's class ids into an array, consuming NumPy's stream exactly as the
reference does (``datasets/data_generators.py:_create_noisy_image_seq``, revision eba75a4).
L items in the part, N classes, H, W, C an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

IMAGE_SHAPE = (105, 105, 1)


class ExampleSource(Protocol):
    """Supplies the examples of a part."""

    n_data_classes: int
    """Classes it has, ids 0..n-1."""
    indices: bool
    """Whether ``draw`` gives (class, exemplar) indices instead of what the model sees."""

    def draw(
        self, classes: np.ndarray, rng: np.random.RandomState, random_rare: np.ndarray | None
    ) -> np.ndarray:
        """Return the examples of ``classes`` (L,), without noise.

        Args:
            classes: int64 (L,) class ids of one part.
            rng: NumPy's stream.
            random_rare: the rare classes, each to be shown as a fresh random binary image;
                ``None`` shows what is stored.
        """
        ...

    def noise_shape(self, n_items: int) -> tuple[int, ...]:
        """Return the shape of the noise that the reference draws for ``n_items`` items."""
        ...


class SymbolicExamples:
    """The class id is the example: int64 (L,)."""

    indices = False

    def __init__(self, n_data_classes: int) -> None:
        self.n_data_classes = n_data_classes

    def draw(
        self, classes: np.ndarray, rng: np.random.RandomState, random_rare: np.ndarray | None
    ) -> np.ndarray:
        """Return the class ids themselves."""
        if random_rare is not None:
            raise ValueError(
                "randomly_generate_rare: true for symbols; random images need images "
                "(example_type 'omniglot')"
            )
        return classes.copy()

    def noise_shape(self, n_items: int) -> tuple[int, ...]:
        """One number per item; it is truncated to an integer, so that it has no visible effect."""
        return (n_items,)


class ExemplarExamples:
    """Several stored drawings per class, drawn without replacement within a part.

    Args:
        exemplars: array (N, n, H, W, C), or one sequence of (H, W, C) drawings per class,
            by position or by class id.
    """

    indices = False

    def __init__(
        self, exemplars: np.ndarray | Sequence[Sequence[np.ndarray]] | Mapping[int, Sequence]
    ) -> None:
        order = _class_ids(exemplars) if isinstance(exemplars, Mapping) else range(len(exemplars))
        self.exemplars = [np.asarray(exemplars[k]) for k in order]
        self.n_data_classes = len(self.exemplars)

    def draw(
        self, classes: np.ndarray, rng: np.random.RandomState, random_rare: np.ndarray | None
    ) -> np.ndarray:
        """Return float64 drawings (L, H, W, C), as the reference does."""
        _refuse_random_rare(random_rare)
        images = np.zeros((len(classes), *self.exemplars[0].shape[1:]))
        for label in np.unique(classes):
            where = classes == label
            stored = self.exemplars[label]
            images[where] = stored[draw_exemplars(len(stored), int(where.sum()), rng)]
        return images

    def noise_shape(self, n_items: int) -> tuple[int, ...]:
        """The shape of the part."""
        return (n_items, *self.exemplars[0].shape[1:])


class IndexExamples:
    """(class id, exemplar id) pairs, int64 (L, 2), with the draws that images would have needed.

    Args:
        n_data_classes: N.
        n_exemplars: drawings per class, one number or one per class; ``None`` = one stored item
            per class, which needs no draw (exemplar id 0).
        item_shape: of the images that the indices stand for; sizes the noise and random images
            that are drawn and thrown away, so that the streams stay those of the images.

    A random binary image (``randomly_generate_rare``) is a negative exemplar id: items of one
    sequence share the image exactly if they share the number.
    """

    indices = True

    def __init__(
        self,
        n_data_classes: int,
        n_exemplars: int | Sequence[int] | None,
        item_shape: tuple[int, ...] = IMAGE_SHAPE,
    ) -> None:
        self.n_data_classes = n_data_classes
        self.item_shape = tuple(item_shape)
        self.n_exemplars = (
            None
            if n_exemplars is None
            else np.broadcast_to(np.asarray(n_exemplars, dtype=np.int64), (n_data_classes,))
        )
        self._random_images = 0

    def draw(
        self, classes: np.ndarray, rng: np.random.RandomState, random_rare: np.ndarray | None
    ) -> np.ndarray:
        """Return int64 (L, 2)."""
        exemplars = np.zeros(len(classes), dtype=np.int64)
        if self.n_exemplars is not None:
            _refuse_random_rare(random_rare)
            for label in np.unique(classes):
                where = classes == label
                count = int(self.n_exemplars[label])
                exemplars[where] = draw_exemplars(count, int(where.sum()), rng)
        elif random_rare is not None:
            for label in rare_in_draw_order(classes, random_rare):
                rng.randint(2, size=self.item_shape)
                self._random_images += 1
                exemplars[classes == label] = -self._random_images
        return np.stack([classes, exemplars], axis=1)

    def noise_shape(self, n_items: int) -> tuple[int, ...]:
        """The shape of the images that the indices stand for."""
        return (n_items, *self.item_shape)


def draw_exemplars(n_exemplars: int, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Choose ``count`` different drawings of one class.

    Raises:
        ValueError: the class has fewer drawings.
    """
    if count > n_exemplars:
        raise ValueError(
            f"exemplars: a class has {n_exemplars} drawings, but one part of a sequence needs "
            f"{count} different ones; use more exemplars, a shorter sequence, or exemplars 'single'"
        )
    return rng.choice(n_exemplars, size=count, replace=False)


def rare_in_draw_order(classes: np.ndarray, rare: np.ndarray) -> list[int]:
    """Return the rare classes of a part in the order in which the reference draws their images.

    The reference walks a Python set, whose order depends on how it was filled; this fills it the
    same way (integers hash to themselves, so the order is the same in every process).
    """
    return list(set(classes.tolist()).intersection(rare.tolist()))


def _refuse_random_rare(random_rare: np.ndarray | None) -> None:
    if random_rare is not None:
        raise ValueError(
            "randomly_generate_rare: true with several exemplars per class; "
            "it needs one stored item per class (exemplars 'single')"
        )


def _class_ids(items: Mapping) -> range:
    if sorted(items) != list(range(len(items))):
        raise ValueError(
            f"examples: class ids are not 0..{len(items) - 1}; number the classes without gaps"
        )
    return range(len(items))

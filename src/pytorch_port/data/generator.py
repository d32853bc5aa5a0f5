"""The reference's sequence generator, its two random streams reproduced draw by draw.

This is the oracle; training uses ``sampler.py`` by default. Every method returns an endless
iterator over records of L items, the query last. Order of draws per part, N = NumPy's legacy
stream, P = Python's ``random``:

* random: N classes, N shuffle, N examples, P polysemy offsets.
* no_support: N query class, N context classes, N shuffle, N examples.
* fewshot: N classes of the ways, P polysemy offsets, P the query's way, N examples, N shuffle.
* bursty: P bursty or not, P which kind, few-shot part, remainder, N shuffle of all but the query.
* mixed: P few-shot or not, then that part.

Source: icl reference ``datasets/data_generators.py:SeqGenerator`` (revision eba75a4).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pytorch_port.data.examples import ExampleSource
from pytorch_port.data.partition import ClassPartition
from pytorch_port.data.plan import PLANS, Branch, Part, SequencePlan, make_plan

Record = dict[str, np.ndarray]


class SeqGenerator:
    """Draws sequences of "common", "rare", "holdout" or Zipf-distributed classes.

    Args:
        examples: where the items come from; decides what a record holds.
        partition: the classes, cut from as many as ``examples`` has.
        noise_scale: standard deviation of the noise added to every item, in the items' unit
            (images: 0 white .. 1); 0 draws none.
        np_random: NumPy's stream; a ``RandomState`` seeded like the global one equals it.
        py_random: Python's stream.
        seed: seeds both streams where they are not given.

    A record holds ``label`` and ``is_rare``, int32 (L,), and ``example`` (L, ...); with an index
    source ``class_id`` and ``exemplar_id``, int64 (L,), take the place of ``example``. Whole
    generators can be pickled; the iterators that the methods return cannot.

    Raises:
        ValueError: partition and examples disagree on the number of classes; noise < 0.
    """

    def __init__(
        self,
        examples: ExampleSource,
        partition: ClassPartition,
        *,
        noise_scale: float = 0.0,
        np_random: np.random.RandomState | None = None,
        py_random: random.Random | None = None,
        seed: int = 0,
    ) -> None:
        if partition.n_data_classes != examples.n_data_classes:
            raise ValueError(
                f"partition: cut from {partition.n_data_classes} classes, but the data have "
                f"{examples.n_data_classes}; build it with the data's number"
            )
        if not noise_scale >= 0:
            raise ValueError(f"noise_scale: {noise_scale} is negative; give a number >= 0")
        self.examples = examples
        self.partition = partition
        self.noise_scale = noise_scale
        self.np_random: np.random.RandomState
        self.py_random: random.Random
        self.reseed(seed)
        self.np_random = np_random or self.np_random
        self.py_random = py_random or self.py_random

    def reseed(self, seed: int) -> None:
        """Restart both streams from ``seed`` (NumPy's takes it modulo 2^32)."""
        self.np_random = np.random.RandomState(seed % 2**32)
        self.py_random = random.Random(seed)

    def get_bursty_seq(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        """Few-shot problems hidden in longer sequences; arguments of ``plan.bursty_plan``."""
        return self._call("get_bursty_seq", args, kwargs)

    def get_no_support_seq(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        """Queries whose class the context lacks; arguments of ``plan.no_support_plan``."""
        return self._call("get_no_support_seq", args, kwargs)

    def get_random_seq(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        """Independent items; arguments of ``plan.random_plan``."""
        return self._call("get_random_seq", args, kwargs)

    def get_fewshot_seq(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        """S shots of W ways and a query; arguments of ``plan.fewshot_plan``."""
        return self._call("get_fewshot_seq", args, kwargs)

    def get_mixed_seq(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        """Few-shot rare or independent common items; arguments of ``plan.mixed_plan``."""
        return self._call("get_mixed_seq", args, kwargs)

    def sequences(self, method: str, args: Mapping[str, Any]) -> Iterator[Record]:
        """Call a method by its name, with keyword arguments.

        Raises:
            ValueError: see ``plan.make_plan``; raised at once, before the first record.
        """
        return self._records(make_plan(self.partition, method, args))

    def draw(self, plan: SequencePlan) -> Record:
        """Draw one record."""
        branch = plan.choose(self.py_random.random)
        parts = [self._draw_part(part, plan) for part in reversed(branch.parts)]
        return self._finish(branch, parts[::-1])

    def _call(self, method: str, args: tuple, kwargs: dict[str, Any]) -> Iterator[Record]:
        return self.sequences(method, bind_arguments(method, args, kwargs))

    def _records(self, plan: SequencePlan) -> Iterator[Record]:
        while True:
            yield self.draw(plan)

    def _finish(self, branch: Branch, parts: list[Record]) -> Record:
        record = parts[0]
        if len(parts) > 1:
            record = {key: np.concatenate([part[key] for part in parts]) for key in record}
        if branch.mixed_up:
            order = np.arange(len(record["label"]) - 1)
            self.np_random.shuffle(order)
            _reorder(record, order)
        if self.examples.indices:
            pairs = record.pop("example")
            record = {"class_id": pairs[:, 0], "exemplar_id": pairs[:, 1], **record}
        return record

    def _draw_part(self, part: Part, plan: SequencePlan) -> Record:
        draw: Callable[[Part], tuple[np.ndarray, np.ndarray]] = {
            "random": self._random,
            "unique": self._unique,
            "no_support": self._no_support,
            "fewshot": self._fewshot,
        }[part.draw]
        index, label = draw(part)
        classes = self.partition.classes(part.class_type)[index]
        example = self._items(classes, plan.randomly_generate_rare)
        if part.draw != "fewshot" and not self.examples.indices:
            example = example.astype(np.float32)
        rare = part.class_type == "rare"
        is_rare = np.full(part.length, int(rare), dtype=np.int32)
        record = {"example": example, "label": label, "is_rare": is_rare}
        if part.draw == "fewshot":
            _reorder(record, self._support_order(part))
        return record

    def _random(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        cumulative = self.partition.cumulative(part.class_type)
        index = cumulative.searchsorted(self.np_random.random_sample(part.length), side="right")
        self.np_random.shuffle(index)
        return index, self._labels(part, index)

    def _unique(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        weights = self.partition.weights(part.class_type)
        index = self.np_random.choice(len(weights), size=part.length, replace=False, p=weights)
        self.np_random.shuffle(index)
        return index, self._labels(part, index)

    def _no_support(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        cumulative = self.partition.cumulative(part.class_type)
        query = cumulative.searchsorted(self.np_random.random_sample(1), side="right")
        others = np.delete(self.partition.weights(part.class_type), query)
        others /= np.sum(others)
        others = others.cumsum()
        others /= others[-1:]
        context = others.searchsorted(self.np_random.random_sample(part.length - 1), side="right")
        context += context >= query
        self.np_random.shuffle(context)
        index = np.concatenate([context, query])
        return index, self._labels(part, index)

    def _fewshot(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        cumulative = self.partition.cumulative(part.class_type)
        ways = cumulative.searchsorted(self.np_random.random_sample(part.ways), side="right")
        labels = self._labels(part, ways)
        query = self.py_random.choice(range(part.ways))
        slots = np.append(np.tile(np.arange(part.ways), part.shots), query)
        return ways[slots], labels[slots]

    def _support_order(self, part: Part) -> np.ndarray:
        order = np.arange(part.length - 1)
        if not part.grouped:
            self.np_random.shuffle(order)
            return order
        for group in np.split(order, part.shots):  # views, shuffled in place
            self.np_random.shuffle(group)
        return order

    def _labels(self, part: Part, index: np.ndarray) -> np.ndarray:
        """Label indices into the class type's list: int32, one per index."""
        labeling = part.labeling
        labels: np.ndarray
        if labeling.kind == "unfixed":
            labels = np.arange(len(index))
        elif labeling.kind == "original":
            labels = self.partition.classes(part.class_type)[index]
        elif labeling.kind == "ordered":
            labels = index + self.partition.label_start(part.class_type)
        else:
            labels = index * labeling.factor + labeling.start
        if labeling.polysemous:
            labels = labels + self.py_random.choices(range(labeling.factor), k=len(index))
        return labels.astype(np.int32)

    def _items(self, classes: np.ndarray, random_rare: bool) -> np.ndarray:
        rare = self.partition.rare if random_rare else None
        items = self.examples.draw(classes, self.np_random, rare)
        if self.noise_scale:
            shape = self.examples.noise_shape(len(classes))
            noise = self.np_random.normal(0, self.noise_scale, shape)
            if not self.examples.indices:
                items = items + noise.astype(items.dtype)
        return items


def _reorder(record: Record, order: np.ndarray) -> None:
    """Reorder all items but the query, in place."""
    for values in record.values():
        values[: len(order)] = values[order]


def bind_arguments(method: str, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name positional arguments in the reference's order.

    Raises:
        ValueError: too many, or one given twice.
    """
    names = list(inspect.signature(PLANS[method]).parameters)[1:]
    if len(args) > len(names):
        raise ValueError(f"{method}: {len(args)} arguments; at most {len(names)} are accepted")
    named = dict(zip(names, args, strict=False))
    twice = sorted(set(named) & set(kwargs))
    if twice:
        raise ValueError(f"{method}: arguments {twice} are given twice; give each once")
    return {**named, **kwargs}

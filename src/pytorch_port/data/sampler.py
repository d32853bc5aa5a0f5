"""Sequences as index tensors, drawn many at a time: the training default.

Statistically equal to ``generator.py`` but without Python per sequence, and a pure function of
(seed, step): a run that resumes at step k needs no sampler state. Sequences are drawn in chunks
of about 2,048 and sliced, so that the cost of an operator is shared by many steps.

Shape legend: M sequences of a chunk, L items (the query last), W ways, B batch. Inside a chunk
the sequence is the *last* axis, so that "item i of every sequence" is contiguous. A *position*
counts classes in the order rare, common, holdout; an item's *key* tells position, part and
``is_rare`` in one number, so that equal keys mean "same class in the same part".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pytorch_port.data.partition import CLASS_TYPES, ClassPartition, ClassType
from pytorch_port.data.plan import Branch, Part, SequencePlan
from trainrig.seeding import derive_seed

SEQUENCES_PER_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class IndexBatch:
    """Which drawing of which class stands where; all int64 (B, L), the query last.

    Attributes:
        class_index: class id, the row of an image bank or the symbol.
        exemplar_index: drawing of the class. Negative numbers stand for random binary images
            (``randomly_generate_rare``): items of a sequence share one if they share the number.
        label: target of the item.
        is_rare: 1 where the item was drawn as a "rare" class.
    """

    class_index: Tensor
    exemplar_index: Tensor
    label: Tensor
    is_rare: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors in the order of the constructor."""
        return self.class_index, self.exemplar_index, self.label, self.is_rare

    def to(self, device: torch.device | str) -> IndexBatch:
        """Copy to a device."""
        return IndexBatch(*(x.to(device, non_blocking=True) for x in self.tensors()))

    def pinned(self) -> IndexBatch:
        """Return a copy in page-locked memory, from which a GPU reads while the host continues."""
        return IndexBatch(*(x.pin_memory() for x in self.tensors()))

    def copy_(self, other: IndexBatch) -> None:
        """Take over the values of another batch of the same size."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs, non_blocking=True)

    def rows(self, index: Tensor) -> IndexBatch:
        """Return the sequences with these numbers, (n,) int64."""
        return IndexBatch(*(x.index_select(0, index) for x in self.tensors()))

    def __len__(self) -> int:
        return self.class_index.shape[0]


@dataclass(frozen=True, eq=False, slots=True)
class SequenceSpec:
    """All that determines the sequences, but for the seed.

    Args:
        partition: the classes.
        plan: the sequences, from ``plan.make_plan`` or ``modes.mode_plan``.
        n_exemplars: drawings per class; 1 for symbols or a single stored image.
        num_classes: size of the head, to check labels against; ``None`` checks nothing.

    Raises:
        ValueError: too few drawings for a part that may show one class throughout; labels that
            the head does not have; random images together with several drawings.
    """

    partition: ClassPartition
    plan: SequencePlan
    n_exemplars: int = 1
    num_classes: int | None = None

    def __post_init__(self) -> None:
        """Check what the two parts must agree on."""
        largest = self.plan.largest_part
        if self.n_exemplars < 1 or 1 < self.n_exemplars < largest:
            raise ValueError(
                f"n_exemplars: {self.n_exemplars} drawings per class, but one part of a sequence "
                f"may need {largest} different ones; use at least {largest}, or exactly 1"
            )
        if self.plan.randomly_generate_rare and self.n_exemplars > 1:
            raise ValueError(
                f"randomly_generate_rare: true with {self.n_exemplars} drawings per class; "
                "it needs one stored item per class (exemplars 'single')"
            )
        bound = self.plan.label_bound(self.partition)
        if self.num_classes is not None and bound > self.num_classes:
            raise ValueError(
                f"labels: reach {bound - 1}, but the head has {self.num_classes} classes; "
                "raise the number of classes or change the labeling"
            )

    @property
    def length(self) -> int:
        """L, items of a sequence."""
        return self.plan.length


class IndexSampler:
    """Draws index batches of one spec.

    Args:
        spec: what to draw.
        batch_size: B.
        seed: with the step it determines everything; derive one per purpose (training, each
            evaluation regime).
        device: where the drawing is done. The streams of CPU and CUDA differ, so runs that must
            agree across devices draw on the CPU, which is the default.
    """

    def __init__(
        self,
        spec: SequenceSpec,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size}; at least 1 is needed")
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.steps_per_chunk = max(1, SEQUENCES_PER_CHUNK // batch_size)
        partition = spec.partition
        self._order = self._tensor(partition.order)
        self._n = partition.n_classes
        uniform = {name: _is_uniform(partition, name) for name in CLASS_TYPES}
        self._cumulative = {
            name: None if uniform[name] else self._tensor(partition.cumulative(name))
            for name in CLASS_TYPES
        }
        self._weights = {name: self._tensor(partition.weights(name)) for name in CLASS_TYPES}
        self._branches = spec.plan.possible
        self._limits = torch.tensor([b.probability for b in self._branches]).double().cumsum(0)
        self._generator = torch.Generator(self.device)
        self._chunk: tuple[int, IndexBatch] | None = None

    def batch(self, step: int) -> IndexBatch:
        """Return batch ``step`` >= 0, freshly allocated."""
        number, row = divmod(step, self.steps_per_chunk)
        rows = slice(row * self.batch_size, (row + 1) * self.batch_size)
        return IndexBatch(*(x[rows].clone() for x in self.chunk(number).tensors()))

    def chunk(self, number: int) -> IndexBatch:
        """Return the batches of a chunk, as ``draw_chunk`` does; to read only."""
        if self._chunk is None or self._chunk[0] != number:
            self._chunk = number, self.draw_chunk(number)
        return self._chunk[1]

    def draw_chunk(self, number: int) -> IndexBatch:
        """Draw the batches of ``steps_per_chunk`` steps at once: (steps_per_chunk * B, L)."""
        self._generator.manual_seed(derive_seed(self.seed, "sequences", number))
        m, plan = self.steps_per_chunk * self.batch_size, self.spec.plan
        uniforms = self._uniform(plan.length, m)  # the branches share them: only one is used
        drawn = [self._branch(branch, uniforms) for branch in self._branches]
        key, label = drawn[0]
        if len(drawn) > 1:
            pick = self._uniform(m)
            for i, (other_key, other_label) in enumerate(drawn[1:]):
                later = pick >= self._limits[i]  # (M,)
                key = torch.where(later, other_key, key)
                label = torch.where(later, other_label, label)
        columns = key.t(), self._exemplars(key).t(), label.t()  # (M, L)
        order = self._shuffle(m)
        if order is None:
            key, exemplar, label = (x.contiguous() for x in columns)
        else:
            key, exemplar, label = (x.gather(1, order) for x in columns)
        position = key.remainder(self._n)
        is_rare = key.div(self._n, rounding_mode="floor").bitwise_and(1)
        return IndexBatch(self._order[position], exemplar, label, is_rare)

    def _tensor(self, array: object) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, device=self.device, generator=self._generator)

    def _branch(self, branch: Branch, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and labels (L, M) in drawing order, the query last."""
        keys, labels, start = [], [], 0
        for number, part in enumerate(branch.parts):
            index, label = self._part(part, uniforms[start : start + part.length])
            flags = 2 * number + (part.class_type == "rare")
            shift = self.spec.partition.label_start(part.class_type) + self._n * flags
            keys.append(index + shift)
            labels.append(label)
            start += part.length
        if len(keys) == 1:
            return keys[0], labels[0]
        return torch.cat(keys), torch.cat(labels)

    def _part(self, part: Part, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return indices into the class type's list, and labels, (length, M)."""
        if part.draw == "fewshot":
            ways = self._classes(part.class_type, uniforms[: part.ways])  # (W, M)
            labels = self._labels(part, ways)
            query = (uniforms[part.ways] * part.ways).long()[None]  # (1, M)
            return (
                torch.cat([ways.repeat(part.shots, 1), ways.gather(0, query)]),
                torch.cat([labels.repeat(part.shots, 1), labels.gather(0, query)]),
            )
        if part.draw == "unique":
            index = self._distinct(part.class_type, part.length, uniforms.shape[1])
        elif part.draw == "no_support":
            query = self._classes(part.class_type, uniforms[-1:])
            index = torch.cat([self._classes_but(part.class_type, uniforms[:-1], query), query])
        else:
            index = self._classes(part.class_type, uniforms)
        return index, self._labels(part, index)

    def _classes(self, class_type: ClassType, uniforms: Tensor) -> Tensor:
        """Draw class indices with their weights, by inversion."""
        cumulative = self._cumulative[class_type]
        count = self.spec.partition.count(class_type)
        if cumulative is None:
            return (uniforms * count).long()
        return torch.searchsorted(cumulative, uniforms, right=True).clamp_(max=count - 1)

    def _classes_but(self, class_type: ClassType, uniforms: Tensor, excluded: Tensor) -> Tensor:
        """Draw class indices with their weights, ``excluded`` (1, M) having none."""
        cumulative = self._cumulative[class_type]
        count = self.spec.partition.count(class_type)
        if cumulative is None:
            index = (uniforms * (count - 1)).long()
            return index + (index >= excluded)
        width = self._weights[class_type][excluded]
        before = cumulative[excluded] - width
        mass = uniforms * (1 - width)
        mass = mass + width * (mass >= before)  # jump over the gap that the query leaves
        index = torch.searchsorted(cumulative, mass, right=True).clamp_(max=count - 1)
        return torch.where(index == excluded, (index + 1) % count, index)  # a rounding accident

    def _distinct(self, class_type: ClassType, length: int, m: int) -> Tensor:
        """Draw distinct class indices, one after the other by weight, then shuffle them."""
        weights = self._weights[class_type].float()
        found = []
        for rows in torch.split(torch.arange(m), max(1, 4_000_000 // len(weights))):
            race = torch.empty(len(rows), len(weights), device=self.device)
            race.exponential_(generator=self._generator).div_(weights)  # earliest arrival wins
            found.append(race.topk(length, dim=1, largest=False).indices)
        order = self._uniform(m, length).argsort(1)
        return torch.cat(found).gather(1, order).t()  # (L, M)

    def _labels(self, part: Part, index: Tensor) -> Tensor:
        """Label indices into the class type's list, row by row."""
        labeling, partition = part.labeling, self.spec.partition
        if labeling.kind == "unfixed":
            return torch.arange(len(index), device=self.device)[:, None].expand_as(index)
        if labeling.kind == "original":
            return self._order[index + partition.label_start(part.class_type)]
        if labeling.kind == "ordered":
            return index + partition.label_start(part.class_type)
        labels = index * labeling.factor + labeling.start
        if labeling.polysemous:
            labels = labels + (self._uniform(*index.shape) * labeling.factor).long()
        return labels

    def _exemplars(self, key: Tensor) -> Tensor:
        """Draw a drawing for each item, different ones for equal keys: (L, M).

        Fisher-Yates for all keys at once: the r-th item of a key swaps place r with a random
        place >= r. What lies there is found by undoing the earlier swaps of the same key.
        """
        if self.spec.plan.randomly_generate_rare:
            rare = key.remainder(self._n) < self.spec.partition.n_rare_classes
            return torch.where(rare, -1 - key, 0)
        if self.spec.n_exemplars == 1:
            return torch.zeros_like(key)
        length, m = key.shape
        same = key[:, None] == key[None]  # (L, L, M)
        same &= torch.ones(length, length, device=self.device).tril(-1).bool()[:, :, None]
        rank = same.sum(1)  # (L, M): earlier items of the same key
        place = rank + (self._uniform(length, m) * (self.spec.n_exemplars - rank)).long()
        drawing = place.clone()
        for k in range(length - 2, -1, -1):
            later = drawing[k + 1 :]
            swapped = same[k + 1 :, k] & (later == place[k])
            drawing[k + 1 :] = torch.where(swapped, rank[k], later)
        return drawing

    def _shuffle(self, m: int) -> Tensor | None:
        """Return where each item comes from, (M, L); ``None`` where order means nothing."""
        parts = [part for branch in self._branches for part in branch.parts]
        few = [part for part in parts if part.draw == "fewshot"]
        if not few:
            return None
        length = self.spec.length
        sort_by = self._uniform(m, length - 1)
        if few[0].grouped and not any(branch.mixed_up for branch in self._branches):
            group = torch.arange(length - 1, device=self.device) // few[0].ways
            sort_by = sort_by + group  # one way of each in every run of W
        query = torch.full((m, 1), length - 1, device=self.device)
        return torch.cat([sort_by.argsort(1), query], 1)


def _is_uniform(partition: ClassPartition, class_type: ClassType) -> bool:
    weights = partition.weights(class_type)
    return len(weights) == 0 or bool((weights == weights[0]).all())

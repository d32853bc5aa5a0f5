"""Order the channels of one network like those of another, which changes no output.

Two solutions may differ by nothing but the order of their channels, and the straight line between
them then has a barrier that says nothing. Channels are matched by the correlation of their
activations on given images: Y. Li et al., "Convergent Learning", arXiv:1511.07543, section 3; the
assignment is that of largest sum, as S. Ainsworth et al., "Git Re-Basin", arXiv:2209.04836,
section 3.1. Correlations do not depend on the scale of a channel.

Legend: C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer_quality.models import CHANNELS, ResNet


@dataclass(frozen=True, slots=True)
class Channels:
    """Channels that can be reordered together.

    Attributes:
        writers: modules whose outputs they are: every tensor's first axis.
        readers: modules whose inputs they are: the kernel's second axis.
        seen: modules whose outputs are compared.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    seen: tuple[str, ...]


def channel_groups(model: ResNet) -> list[Channels]:
    """Return the groups of a ``ResNet``: one per stage's residual stream, one inside each block."""
    stages = [
        [
            f"stage{number}.{name}"
            for name, _ in model.get_submodule(f"stage{number}").named_children()
        ]
        for number in range(1, len(CHANNELS) + 1)
    ]
    groups = []
    for number, blocks in enumerate(stages):
        first = ["stem.0", "stem.1"] if number == 0 else []
        if number > 0:
            first = [f"{blocks[0]}.shortcut.0", f"{blocks[0]}.shortcut.1"]
        inside = blocks if number == 0 else blocks[1:]
        following = stages[number + 1][0] if number + 1 < len(stages) else None
        after = [f"{following}.conv1", f"{following}.shortcut.0"] if following else ["fc"]
        groups.append(
            Channels(
                writers=(*first, *(f"{b}.{part}" for b in blocks for part in ("conv2", "bn2"))),
                readers=(*(f"{b}.conv1" for b in inside), *after),
                # In front of the ReLU, since a channel that it silences has no correlation.
                seen=(*first[1:], *(f"{b}.bn2" for b in blocks)),
            )
        )
        groups += [
            Channels((f"{b}.conv1", f"{b}.bn1"), (f"{b}.conv2",), (f"{b}.bn1",)) for b in blocks
        ]
    return groups


@torch.no_grad()
def reordered(model: ResNet, orders: Mapping[Channels, Tensor]) -> ResNet:
    """Return a copy whose channel i of each group is channel ``order[i]`` of ``model``."""
    model = copy.deepcopy(model)
    for group, order in orders.items():
        for name in group.writers:
            module = model.get_submodule(name)
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.ndim:  # a counter has none
                    tensor.copy_(tensor[order])
        for name in group.readers:
            kernel = model.get_submodule(name).get_parameter("weight")
            kernel.copy_(kernel[:, order])
    return model


@torch.no_grad()
def match_channels(
    a: ResNet, b: ResNet, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[Channels, Tensor]:
    """Return for every group the order of ``b``'s channels that correlates best with ``a``'s.

    Args:
        a: left as it is, as is ``b``: networks of one architecture, in evaluation mode.
        b: see ``a``.
        batches: images that activations are compared on.
    """
    from scipy.optimize import linear_sum_assignment

    groups = channel_groups(a)
    names = list(dict.fromkeys(name for group in groups for name in group.seen))
    moments: dict[str, list[Tensor]] = {}
    for images, _ in batches:
        ours, theirs = _outputs(a, images, names), _outputs(b, images, names)
        for name in names:
            x, y = ours[name], theirs[name]
            parts = [
                torch.tensor(float(x.shape[1]), dtype=torch.float64),
                *(x.sum(1), y.sum(1), x @ y.T, x.square().sum(1), y.square().sum(1)),
            ]
            old = moments.get(name)
            added = parts if old is None else [p + q for p, q in zip(old, parts, strict=True)]
            moments[name] = added
    orders = {}
    for group in groups:
        similarity = sum((_correlations(*moments[name]) for name in group.seen), torch.zeros(()))
        _, order = linear_sum_assignment(similarity.numpy(), maximize=True)
        orders[group] = torch.from_numpy(order)
    return orders


def _outputs(model: ResNet, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the outputs of modules, (C, images * pixels) each, in float64."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:  # at once: the next module may write in place
        found[name] = output.transpose(0, 1).flatten(1).double()

    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: keep(name, output)
        )
        for name in names
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _correlations(
    n: Tensor, x: Tensor, y: Tensor, products: Tensor, xx: Tensor, yy: Tensor
) -> Tensor:
    """Return the correlation of every channel of one network with every one of the other."""
    covariance = products / n - torch.outer(x / n, y / n)
    variances = [(s / n - (m / n).square()).clamp_min(1e-12) for s, m in ((xx, x), (yy, y))]
    return covariance / torch.outer(*variances).sqrt()

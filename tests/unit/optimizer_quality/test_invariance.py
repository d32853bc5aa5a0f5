"""Which measures depend on what a network's function does not: the table, claim by claim.

A network is changed in a way that leaves its outputs as they are, or is measured in another order
or precision. ``SAME`` claims the measure stays; every other cell must show that it moves.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from optimizer_quality.measures.alignment import channel_groups, match_channels, reordered
from optimizer_quality.measures.barrier import loss_line, mean_loss
from optimizer_quality.measures.curvature import (
    COORDINATES,
    HessianOperator,
    hutchinson_traces,
    lanczos,
)
from optimizer_quality.measures.layers import activation_statistics, weight_statistics
from optimizer_quality.measures.predictions import (
    calibration,
    disagreement,
    error_consistency,
    predict,
)
from optimizer_quality.measures.pruning import SCOPES, pruned
from optimizer_quality.measures.representations import (
    class_similarity,
    pooled_features,
    probe_accuracy,
)
from optimizer_quality.measures.similarity import CkaMatrix, layer_grams
from optimizer_quality.models import ResNet

N, SIDE, K = 16, 8, 4


def pictures():
    """Images whose class is a bright corner, so that a few steps learn it."""
    torch.manual_seed(2)
    x, y = torch.randn(N, 3, SIDE, SIDE, dtype=torch.float64), torch.arange(N) % K
    for image, label in zip(x, y.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.5
    return x, y


def solution():
    torch.manual_seed(0)
    model, (x, y) = ResNet(K, 1).double(), pictures()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def near(model):
    """A network that a straight line reaches without a bump: its kernels are a little off."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for kernel in (p for p in model.parameters() if p.ndim > 1):
            noise = torch.randn(kernel.shape, generator=generator, dtype=kernel.dtype)
            kernel.add_(0.3 * kernel.std() * noise)
    return model


@pytest.fixture(scope="module")
def networks():
    found = solution()
    return found, near(found)


@pytest.fixture(scope="module")
def batches():
    """The images, some with a wrong label, so that both networks err."""
    x, y = pictures()
    y[::5] = (y[::5] + 1) % K
    return [(x[:7], y[:7]), (x[7:], y[7:])]


def scaled(model, *, by_filter=False):
    """Scale every convolution in front of a BatchNorm, and the statistics to match.

    One factor for each kernel, or for each filter.
    """
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    factors = itertools.cycle((0.5, 3.0))
    for convolution, norm in itertools.pairwise(model.modules()):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            factor = torch.full((norm.num_features,), next(factors), dtype=torch.float64)
            if by_filter:
                factor = torch.exp(torch.randn(factor.shape, generator=generator).double())
            with torch.no_grad():
                convolution.weight.mul_(factor.view(-1, 1, 1, 1))
                norm.running_mean.mul_(factor)
                norm.running_var.add_(norm.eps).mul_(factor**2).sub_(norm.eps)
    return model


def shuffled(model):
    """Reorder the channels of every group."""
    generator = torch.Generator().manual_seed(3)
    return reordered(
        model,
        {
            group: torch.randperm(
                len(model.get_submodule(group.writers[0]).weight), generator=generator
            )
            for group in channel_groups(model)
        },
    )


def other_order(batches):
    """The same images in another order and other batches."""
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(4))
    return [(x[order[:9]], y[order[:9]]), (x[order[9:]], y[order[9:]])]


TRANSFORMATIONS = {
    "scale": lambda a, b, batches: (scaled(a), b, batches),
    "filters": lambda a, b, batches: (scaled(a, by_filter=True), b, batches),
    "channels": lambda a, b, batches: (shuffled(a), b, batches),
    "order": lambda a, b, batches: (a, b, other_order(batches)),
    "dtype": lambda a, b, batches: (
        copy.deepcopy(a).float(),
        copy.deepcopy(b).float(),
        [(x.float(), y) for x, y in batches],
    ),
}


def eigenvalue(name):
    def measure(a, b, batches):
        del b
        operator = HessianOperator(a, batches)
        d = COORDINATES[name](operator.parameters)
        found = lanczos(lambda v: d * operator(d * v), operator.like, n_top=1, n_steps=15)
        return found.eigenvalues

    return measure


def logits(a, b, batches):
    """Predictions in an order that does not depend on that of the images."""
    found, labels = predict(a, batches)
    other, _ = predict(b, batches)
    return found.double(), other.double(), labels


def line_barrier(align):
    def measure(a, b, batches):
        if align:
            b = reordered(b, match_channels(a, b, batches))
        return [loss_line(a, b, batches, n_points=3).barrier]

    return measure


def similarity(a, b, batches):
    """CKA of equal layers; re-estimated order of images is the same for both."""
    mine, theirs = (CkaMatrix(list(layer_grams(m, batches).values())) for m in (a, b))
    return mine.between(theirs).diagonal().tolist()


def last_features(a, batches):
    features, labels = pooled_features(a, batches)
    return features["pool"], labels


def sparsity(scope):
    def measure(a, b, batches):
        del b
        return [mean_loss(pruned(a, 0.5, scope), batches)[0]]

    return measure


def weight_column(key):
    def measure(a, b, batches):
        del batches
        return [row[key] for row in weight_statistics(a, b)]

    return measure


def readable(a, b, batches):
    del b
    features, labels = pooled_features(a, batches)
    return [probe_accuracy((f, labels), (f, labels), K) for f in features.values()]


MEASURES = {
    "loss": lambda a, b, batches: mean_loss(a, batches),
    "disagreement": lambda a, b, batches: [disagreement(*logits(a, b, batches)[:2])],
    "error consistency": lambda a, b, batches: [error_consistency(*logits(a, b, batches))],
    "calibration": lambda a, b, batches: [calibration(*predict(a, batches)).nll],
    "barrier": line_barrier(align=False),
    "barrier, aligned": line_barrier(align=True),
    "CKA": similarity,
    "eigenvalue, plain": eigenvalue("plain"),
    "eigenvalue, filter": eigenvalue("filter"),
    "eigenvalue, adaptive": eigenvalue("adaptive"),
    "norm": weight_column("l2"),
    "distance from start": weight_column("distance_from_start"),
    "angle from start": weight_column("angle_from_start"),
    "stable rank": weight_column("stable_rank"),
    "effective rank": weight_column("effective_rank"),
    "features in use": lambda a, b, batches: [
        row["effective_rank"] for row in activation_statistics(a, batches)
    ],
    "class similarity": lambda a, b, batches: class_similarity(
        *last_features(a, batches), K
    ).flatten(),
    "probe": readable,
    **{f"pruned, {scope}": sparsity(scope) for scope in SCOPES},
}
#: Measure → the transformations that move it. Everything else is claimed to stay.
MOVED = {
    "barrier": {"scale", "filters", "channels"},  # of one end alone
    "barrier, aligned": {"scale", "filters"},
    "eigenvalue, plain": {"scale", "filters"},
    "norm": {"scale", "filters"},
    "distance from start": {"scale", "filters", "channels"},  # the start keeps its channels
    "angle from start": {"channels"},
    "stable rank": {"filters"},
    "effective rank": {"filters"},
    "pruned, network": {"scale", "filters"},
    "pruned, layer": {"filters"},
}


@pytest.mark.parametrize("change", TRANSFORMATIONS)
def test_transformations_leave_the_function_as_it_is(networks, batches, change):
    a, b, changed = TRANSFORMATIONS[change](*networks, batches)
    if change != "order":
        for model, plain in ((a, networks[0]), (b, networks[1])):
            x = changed[0][0]
            assert_close(model(x), plain(batches[0][0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_moves_only_where_the_table_says(networks, batches, name):
    measure, moved = MEASURES[name], MOVED.get(name, set())
    plain = numbers(measure(*networks, batches))
    for change, transform in TRANSFORMATIONS.items():
        found = numbers(measure(*transform(*networks, batches)))
        largest = ((found - plain).abs() / plain.abs().clamp_min(1e-3)).max().item()
        if change in moved:
            assert largest > 0.01, f"{name} does not depend on {change}: {largest}"
        else:
            assert largest < 1e-4, f"{name} depends on {change}: {largest}"


def numbers(values):
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def test_scaling_changes_the_plain_trace_and_not_the_relative_ones(networks, batches):
    traces = [
        [
            trace
            for trace, _ in hutchinson_traces(
                operator, [make(operator.parameters) for make in COORDINATES.values()], n_probes=4
            )
        ]
        for operator in (HessianOperator(m, batches) for m in (networks[0], scaled(networks[0])))
    ]
    plain, *relative = zip(*traces, strict=True)
    assert abs(plain[1] / plain[0] - 1) > 0.1
    for before, after in relative:
        assert after == pytest.approx(before, rel=1e-4)  # logits are float32


def test_alignment_finds_a_hidden_order(networks, batches):
    a = networks[0]
    hidden = shuffled(a)
    assert (hidden.stem[0].weight - a.stem[0].weight).abs().max() > 0.1
    found = reordered(hidden, match_channels(a, hidden, batches))
    for name, value in found.state_dict().items():
        assert_close(value, a.state_dict()[name], msg=name)


def test_alignment_lowers_the_barrier_between_a_network_and_its_shuffled_twin(networks):
    a, twin, right = networks[0], shuffled(networks[0]), [pictures()]
    plain, aligned = (line_barrier(align=choice)(a, twin, right)[0] for choice in (False, True))
    assert plain > 0.01
    assert aligned == pytest.approx(0, abs=1e-9)

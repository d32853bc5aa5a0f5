"""Norms and accuracy from their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainrig.metrics import (
    accuracy,
    grad_l2,
    l2_norm,
    read_scalars,
    weight_l2,
    weight_l2_all,
    weight_l2_head,
    weight_matrices,
)


@pytest.fixture
def net():
    net = nn.Module()
    net.body = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm((3, 4)), nn.Linear(4, 4))
    net.head = nn.Linear(4, 2)
    return net


def test_weight_l2_takes_matrices_and_tables_but_no_norm_layer(net):
    assert [n for n, _ in weight_matrices(net)] == ["body.0.weight", "body.2.weight", "head.weight"]
    squares = sum(p.double().square().sum() for _, p in weight_matrices(net))
    assert weight_l2(net).item() == pytest.approx(squares.sqrt().item(), rel=1e-12)


def test_weight_l2_all_and_head(net):
    squares = sum(p.double().square().sum() for p in net.parameters())
    assert weight_l2_all(net).item() == pytest.approx(squares.sqrt().item(), rel=1e-12)
    assert weight_l2_head(net).item() == pytest.approx(net.head.weight.norm().item(), rel=1e-6)


def test_grad_l2_ignores_missing_gradients(net):
    assert grad_l2(net).item() == 0.0
    net.head.weight.grad = torch.full((2, 4), 0.5)
    assert grad_l2(net).item() == pytest.approx(2**0.5)


def test_norms_keep_float64_accuracy():
    big = torch.full((1000, 1000), 0.1)
    assert l2_norm([big]).item() == pytest.approx(1000 * float(big[0, 0]), rel=1e-10)


def test_accuracy():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 0])).item() == 0.75


def test_norms_have_the_bits_of_one_norm_after_the_other():
    tensors = [torch.randn(50, 7), torch.randn(33, 4).T, torch.randn(())]
    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors]
    assert torch.equal(l2_norm(tensors), torch.linalg.vector_norm(torch.stack(norms)))


def test_scalars_are_read_together_without_rounding():
    scalars = {"a": torch.tensor(0.1), "b": torch.tensor(0.1, dtype=torch.float64)}
    assert read_scalars(scalars) == {"a": float(scalars["a"]), "b": 0.1}
    assert read_scalars({}) == {}

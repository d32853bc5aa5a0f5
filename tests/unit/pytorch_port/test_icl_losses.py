"""Loss and scalars from their definitions, beyond what is recorded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.testing import assert_close

from pytorch_port.model.losses import (
    SCALARS,
    closed_set,
    icl_loss,
    icl_scalars,
    label_sets,
    make_targets,
    polysemy_factor,
)

N_CLASSES, N_RARE, N_COMMON = 12, 6, 4


@pytest.fixture
def batch():
    labels = torch.randint(0, 10, (8, 5))
    return torch.randn(8, 9, N_CLASSES), labels


@pytest.fixture
def sets():
    return label_sets(N_CLASSES, N_RARE, N_COMMON)


def test_targets_interleave_zeros_unless_concatenated():
    labels = torch.tensor([[3, 5, 7]])
    assert make_targets(labels).tolist() == [[3, 0, 5, 0, 7]]
    assert make_targets(labels, concatenate_labels=True) is labels


def test_query_loss_is_plain_cross_entropy(batch):
    logits, labels = batch
    expected = F.cross_entropy(logits[:, -1], labels[:, -1])
    assert_close(icl_loss(logits, labels), expected)
    assert_close(icl_loss(logits[:, -1:], labels), expected)


@pytest.mark.parametrize("w", [0.1, 0.4, 1.0])
def test_interim_loss_from_its_weight_map(batch, w):
    logits, labels = batch
    target, n = make_targets(labels), labels.shape[1] - 1
    weight = torch.zeros(9)
    weight[-1], weight[:-2:2] = 1 - w, w / n
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (B, T)
    expected = (losses * weight).sum() / (weight.sum() * len(logits))
    assert_close(icl_loss(logits, labels, w), expected)
    scalars = icl_scalars(logits, target, label_sets(12, 6, 4), "bursty", w_interim=w)
    assert_close(scalars["loss"], expected)
    assert_close(scalars["loss_query"], ((1 - w) * losses[:, -1]).mean())
    assert_close(scalars["loss_interim"], (w / n * losses[:, :-2:2]).mean())


def test_scalars_of_the_query_alone_equal_those_of_all_positions(batch, sets):
    logits, labels = batch
    target = make_targets(labels)
    full = icl_scalars(logits, target, sets, "bursty")
    assert tuple(full) == SCALARS
    query = icl_scalars(logits[:, -1:], target, sets, "bursty")
    for name in SCALARS:
        assert torch.equal(full[name], query[name])


def test_closed_accuracy_chooses_among_the_right_labels(batch, sets):
    logits, labels = batch
    target = make_targets(labels)
    for seq_type in ("bursty", "fewshot_holdout", "no_support_rare", "no_support_zipfian"):
        allowed = closed_set(sets, seq_type).nonzero().flatten()
        chosen = allowed[logits[:, -1][:, allowed].argmax(-1)]
        expected = (chosen == labels[:, -1]).float().mean()
        assert_close(icl_scalars(logits, target, sets, seq_type)["accuracy_closed"], expected)
    assert icl_scalars(logits, target, sets, "mixed")["accuracy_closed"].item() == 0.0


def test_ways_widen_the_fewshot_set():
    assert label_sets(12, 6, 4, ways=5).fewshot.sum() == 5


def test_original_labels_use_the_given_ids():
    sets = label_sets(12, 3, 2, original_ids=([0, 7, 9], [1, 2]))
    assert sets.rare.nonzero().flatten().tolist() == [0, 7, 9]
    assert sets.common.nonzero().flatten().tolist() == [1, 2]


def test_polysemy_ranges_fixed_and_as_in_the_reference():
    fixed = label_sets(22, 6, 4, labeling_rare="ordered_polysemy3")
    assert fixed.rare.nonzero().flatten().tolist() == list(range(18))
    assert fixed.common.nonzero().flatten().tolist() == [18, 19, 20, 21]
    reference = label_sets(22, 6, 4, labeling_rare="ordered_polysemy3", defects="reference")
    assert not reference.common.any()
    assert polysemy_factor("ordered") == polysemy_factor("original") == 1
    for bad in ("ordered_polysemy", "ordered_polysemy0", "ordered_polysemyx"):
        with pytest.raises(ValueError, match="with X >= 1"):
            polysemy_factor(bad)


def test_polysemy_counts_any_label_of_the_class_and_shifts_common_targets():
    sets = label_sets(22, 6, 4, labeling_rare="ordered_polysemy3")
    logits = torch.zeros(3, 1, 22)
    logits[0, 0, 4], logits[1, 0, 6], logits[2, 0, 19] = 9.0, 9.0, 9.0
    target = make_targets(torch.tensor([[0, 5], [0, 5], [0, 7]]))
    rare = icl_scalars(logits, target, sets, "no_support_rare")
    assert rare["accuracy_query"].item() == pytest.approx(1 / 3)  # 4 shares class 1 with 5
    common = icl_scalars(logits, target, sets, "no_support_common")
    assert common["accuracy_query"].item() == pytest.approx(1 / 3)  # 7 moves to 19
    assert common["accuracy_closed"].item() == pytest.approx(1 / 3)


def test_out_of_range_labels_cost_nothing_in_scalars_and_raise_in_training(batch, sets):
    logits, labels = batch
    labels[:, -1] = N_CLASSES
    assert icl_scalars(logits, make_targets(labels), sets, "bursty")["loss"].item() == 0.0
    with pytest.raises(IndexError):
        icl_loss(logits, labels)


def test_half_precision_logits_are_judged_in_float32(batch):
    logits, labels = batch
    assert icl_loss(logits.bfloat16(), labels).dtype == torch.float32
    assert icl_loss(logits.double(), labels, 0.3).dtype == torch.float64


def test_bad_arguments(batch, sets):
    logits, labels = batch
    with pytest.raises(ValueError, match=r"w_interim: 1\.5 is out of range"):
        icl_loss(logits, labels, 1.5)
    with pytest.raises(ValueError, match="not defined for concatenated labels"):
        icl_loss(logits[:, :5], labels, 0.5, concatenate_labels=True)
    with pytest.raises(ValueError, match="query_only=False"):
        icl_loss(logits[:, -1:], labels, 0.5)
    with pytest.raises(ValueError, match="unknown sequence type 'burst'"):
        icl_scalars(logits, make_targets(labels), sets, "burst")
    with pytest.raises(ValueError, match="label 13 does not fit 12 classes"):
        label_sets(12, 10, 4)

"""Loss and scalars from their definitions, beyond what is recorded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.testing import assert_close

from pytorch_port.data.label_sets import label_sets, polysemy_factor
from pytorch_port.train.losses import SCALARS, closed_set, icl_loss, icl_scalars, make_targets

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


def test_interim_predictions_may_give_any_label_of_a_rare_class():
    sets = label_sets(4, 1, 2, labeling_rare="ordered_polysemy2", defects="reference")
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 1] = logits[0, 2, 1] = 9.0
    target = torch.tensor([[0, 0, 0]])
    for seq_type in ("no_support_rare", "no_support_zipfian"):
        scalars = icl_scalars(logits, target, sets, seq_type, w_interim=0.5)
        assert scalars["accuracy_interim"] == 1.0
    assert icl_scalars(logits, target, sets, "bursty", w_interim=0.5)["accuracy_interim"] == 0.0


def test_common_labels_of_the_context_move_up_as_the_query_does():
    sets = label_sets(5, 1, 3, labeling_rare="ordered_polysemy2")
    logits = torch.zeros(1, 3, 5)
    logits[0, 2, 3] = 9.0
    target = torch.tensor([[2, 0, 1]])
    scalars = icl_scalars(logits, target, sets, "no_support_common")
    assert (scalars["from_support"], scalars["from_support_common"]) == (1.0, 1.0)
    assert target.tolist() == [[2, 0, 1]]  # the caller's own stays


def twin(logits, target, sets, seq_type, w, concatenated):
    """The 13 scalars by loops over sequences and positions."""
    factor, n_rare = sets.polysemy, sets.n_rare
    totals = dict.fromkeys(SCALARS, 0.0)
    stride = 1 if concatenated else 2
    for sequence, raw in zip(logits, target.tolist(), strict=True):
        labels = raw[::stride]
        if seq_type == "no_support_common" and factor > 1:
            labels = [label + n_rare * (factor - 1) for label in labels]
        at = [sequence[stride * i] for i in range(len(labels))]
        if concatenated:
            at[-1] = sequence[-1]

        def loss(scores, label):
            return float(torch.logsumexp(scores.double(), 0) - scores[label].double())

        def right(scores, label):
            predicted = int(scores.argmax())
            if factor > 1 and seq_type in ("no_support_rare", "no_support_zipfian"):
                return predicted in range(label // factor * factor, (label // factor + 1) * factor)
            return predicted == label

        n = len(labels) - 1
        query = (1 - w if w else 1.0) * loss(at[-1], labels[-1])
        interim = [w / n * loss(s, label) for s, label in zip(at[:-1], labels[:-1], strict=True)]
        totals["loss"] += query + (sum(interim) if w else 0.0)
        totals["loss_query"] += query
        totals["loss_interim"] += sum(interim) / n if w else 0.0
        totals["accuracy_query"] += right(at[-1], labels[-1])
        if w:
            hits = [right(s, label) for s, label in zip(at[:-1], labels[:-1], strict=True)]
            totals["accuracy_interim"] += sum(hits) / n
        allowed = closed_set(sets, seq_type)
        if allowed is not None:
            chosen = max(torch.where(allowed)[0].tolist(), key=lambda k: float(at[-1][k]))
            totals["accuracy_closed"] += chosen == labels[-1]
        predicted = int(at[-1].argmax())
        seen = labels[:-2:2] if concatenated else labels[:-1]  # the reference's stride
        for name in ("common", "rare", "fewshot"):
            inside = bool(getattr(sets, name)[predicted])
            totals[f"from_{name}"] += inside
            totals[f"from_support_{name}"] += inside and predicted in seen
        totals["from_support"] += predicted in seen
    return {name: value / len(logits) for name, value in totals.items()}


@pytest.mark.parametrize(("w", "concatenated"), [(0.0, False), (0.5, False), (0.0, True)])
@pytest.mark.parametrize("labeling", ["ordered", "ordered_polysemy3"])
@pytest.mark.parametrize(
    "seq_type",
    [
        *("bursty", "fewshot_holdout", "no_support_common", "no_support_rare"),
        *("no_support_zipfian", "mixed"),
    ],
)
def test_every_scalar_of_every_regime_is_that_of_a_slow_twin(seq_type, labeling, w, concatenated):
    n_rare, n_common = 3, 4
    factor = polysemy_factor(labeling)
    classes = factor * n_rare + n_common
    sets = label_sets(classes, n_rare, n_common, ways=2, labeling_rare=labeling)
    generator = torch.Generator().manual_seed(factor)
    high = n_rare + n_common if seq_type == "no_support_common" else classes
    low = n_rare if seq_type == "no_support_common" else 0
    labels = torch.randint(low, high, (64, 5), generator=generator)
    length = 5 if concatenated else 9
    logits = torch.randn(64, length, classes, generator=generator)
    target = make_targets(labels, concatenate_labels=concatenated)
    ours = icl_scalars(logits, target, sets, seq_type, w_interim=w, concatenate_labels=concatenated)
    expected = twin(logits, target, sets, seq_type, w, concatenated)
    assert_close({k: float(v) for k, v in ours.items()}, expected, rtol=1e-5, atol=1e-6)

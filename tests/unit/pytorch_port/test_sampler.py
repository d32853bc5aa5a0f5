"""What every kind of sequence keeps, whoever draws it, and that both samplers draw alike."""

import pickle

import numpy as np
import pytest
import torch

from pytorch_port.data.loading import SequenceDataset
from pytorch_port.data.partition import ClassPartition
from pytorch_port.data.plan import make_plan
from pytorch_port.data.sampler import IndexSampler, SequenceSpec
from pytorch_port.parity.sequence_statistics import Sequences, chi_square_p, p_values, summarize

N, DRAWINGS = 100, 20
ZIPF = ClassPartition(N, 60, 12, 8, zipf_exponent=1.0)
SLICED = ClassPartition(N, 60, 12, 8, zipf_exponent=1.0, use_zipf_for_common_rare=True)
UNIFORM = ClassPartition(104, 60, 12, 8, zipf_exponent=0.0, preserve_ordering_every_n=8)
BURSTY = {
    "seq_len": 9,
    "shots": 3,
    "ways": 2,
    "p_bursty": 0.8,
    "p_bursty_common": 0.3,
    "p_bursty_zipfian": 0.3,
    "labeling_rare": "ordered",
}
CASES = {
    "bursty_mix": ("get_bursty_seq", BURSTY),
    "bursty_polysemy": (
        "get_bursty_seq",
        {**BURSTY, "labeling_rare": "ordered_polysemy3", "p_bursty_zipfian": 0, "grouped": True},
    ),
    "bursty_original_no_support": (
        "get_bursty_seq",
        {
            **BURSTY,
            "p_bursty": 0.5,
            "non_bursty_type": "common_no_support",
            "labeling_common": "original",
            "labeling_rare": "original",
        },
    ),
    "bursty_unfixed": (
        "get_bursty_seq",
        {**BURSTY, "p_bursty_common": 0, "p_bursty_zipfian": 0, "labeling_rare": "unfixed"},
    ),
    "bursty_no_remainder": ("get_bursty_seq", {**BURSTY, "seq_len": 7, "p_bursty": 1.0}),
    "bursty_5way": ("get_bursty_seq", {**BURSTY, "shots": 1, "ways": 5, "p_bursty": 1.0}),
    "fewshot": ("get_fewshot_seq", {"class_type": "holdout", "shots": 4, "ways": 2}),
    "fewshot_grouped": (
        "get_fewshot_seq",
        {"class_type": "zipfian", "shots": 3, "ways": 3, "grouped": True},
    ),
    "fewshot_polysemy": (
        "get_fewshot_seq",
        {"class_type": "rare", "shots": 4, "ways": 2, "labeling": "ordered5_polysemy3"},
    ),
    "fewshot_original": (
        "get_fewshot_seq",
        {"class_type": "common", "shots": 4, "ways": 2, "labeling": "original"},
    ),
    "random": ("get_random_seq", {"class_type": "zipfian", "seq_len": 6}),
    "random_polysemy": (
        "get_random_seq",
        {"class_type": "rare", "seq_len": 6, "labeling": "ordered4_polysemy2"},
    ),
    "random_unique": (
        "get_random_seq",
        {"class_type": "zipfian", "seq_len": 9, "all_unique": True},
    ),
    "no_support_unique": ("get_no_support_seq", {"class_type": "holdout", "seq_len": 8}),
    "no_support": (
        "get_no_support_seq",
        {"class_type": "zipfian", "seq_len": 9, "all_unique": False},
    ),
    "no_support_ordered180": (
        "get_no_support_seq",
        {"class_type": "common", "seq_len": 9, "all_unique": False, "labeling": "ordered180"},
    ),
    "mixed": ("get_mixed_seq", {"shots": 4, "ways": 2, "p_fewshot": 0.4}),
}
#: What a case does not say by itself, held by every sequence of it.
KIND = {
    name: name.split("_")[0] if not name.startswith("no_support") else "no_support"
    for name in CASES
}


def make_spec(name, partition=ZIPF, n_exemplars=DRAWINGS):
    method, args = CASES[name]
    return SequenceSpec(partition, make_plan(partition, method, args), n_exemplars)


def draw(name, sampler, n, partition=ZIPF, n_exemplars=DRAWINGS, seed=1):
    return SequenceDataset(make_spec(name, partition, n_exemplars), n, seed, sampler=sampler)[0]


def positions(batch, partition):
    inverse = np.full(partition.n_data_classes, -1)
    inverse[partition.order] = np.arange(partition.n_classes)
    return Sequences(inverse[batch.class_index.numpy()], batch.label.numpy(), batch.is_rare.numpy())


@pytest.fixture(params=["vectorized", "exact"])
def sampler(request):
    return request.param


@pytest.mark.parametrize("partition", [ZIPF, SLICED, UNIFORM], ids=["zipf", "sliced", "uniform"])
@pytest.mark.parametrize("name", CASES)
def test_every_sequence_keeps_its_rules(name, partition, sampler):
    batch = draw(name, sampler, 200, partition)
    spec = make_spec(name, partition)
    assert batch.class_index.shape == (200, spec.length)
    for tensor in (batch.class_index, batch.exemplar_index, batch.label, batch.is_rare):
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    assert bool((batch.label >= 0).all())
    assert bool((batch.label < spec.plan.label_bound(partition)).all())
    assert bool(((batch.exemplar_index >= 0) & (batch.exemplar_index < DRAWINGS)).all())
    assert set(batch.class_index.unique().tolist()) <= set(partition.order.tolist())
    args = CASES[name][1]
    context, query = batch.class_index[:, :-1], batch.class_index[:, -1:]
    if KIND[name] == "no_support":
        assert not bool((context == query).any())
    if name.endswith("unique"):
        assert bool((batch.class_index.sort(1).values.diff() > 0).all())
    if KIND[name] == "fewshot" or (KIND[name] == "bursty" and args["p_bursty"] == 1):
        assert bool(((context == query).sum(1) >= args["shots"]).all())
        assert bool(((batch.label[:, :-1] == batch.label[:, -1:]).sum(1) >= args["shots"]).all())


@pytest.mark.parametrize("name", ["fewshot", "fewshot_grouped", "bursty_no_remainder", "random"])
def test_no_drawing_repeats_within_a_part(name, sampler):
    batch = draw(name, sampler, 500)
    item = batch.class_index * DRAWINGS + batch.exemplar_index
    assert bool((item.sort(1).values.diff() > 0).all())


def test_parts_draw_independently_so_a_drawing_can_repeat_across_them(sampler):
    """Burst and remainder of one class may share a drawing, as in the reference."""
    narrow = ClassPartition(4, 2, 1, 1, zipf_exponent=0.0)
    args = {**BURSTY, "seq_len": 9, "p_bursty": 1.0, "p_bursty_common": 0, "p_bursty_zipfian": 1.0}
    spec = SequenceSpec(narrow, make_plan(narrow, "get_bursty_seq", args), 9)
    batch = SequenceDataset(spec, 300, 0, sampler=sampler)[0]
    item = batch.class_index * 9 + batch.exemplar_index
    assert bool((item.sort(1).values.diff() == 0).any())


def test_fewshot_shows_every_way_as_often_as_shots(sampler):
    batch = draw("fewshot", sampler, 300)
    assert bool((batch.label[:, :-1].sum(1) == 4).all())
    order = batch.label[:, :-1].unique(dim=0)
    assert len(order) > 60  # of 70 arrangements
    grouped = draw("fewshot_grouped", sampler, 300).label[:, :-1].reshape(300, 3, 3)
    assert bool((grouped.sort(2).values == torch.arange(3)).all())


@pytest.mark.parametrize(
    ("name", "factor", "start", "class_type"),
    [
        ("fewshot_polysemy", 3, 5, "rare"),
        ("random_polysemy", 2, 4, "rare"),
        ("no_support_ordered180", 1, 180, "common"),
        ("random", 1, 0, "zipfian"),
    ],
)
def test_labels_name_their_class(name, factor, start, class_type, sampler):
    batch = draw(name, sampler, 300)
    classes = torch.from_numpy(ZIPF.classes(class_type).copy())
    assert torch.equal(classes[(batch.label - start) // factor], batch.class_index)
    if factor > 1:
        assert set(((batch.label - start) % factor).unique().tolist()) == set(range(factor))


def test_original_labels_are_class_ids(sampler):
    for name in ("fewshot_original", "bursty_original_no_support"):
        batch = draw(name, sampler, 50)
        assert torch.equal(batch.label, batch.class_index)


def test_is_rare_marks_parts_drawn_as_rare(sampler):
    batch = draw("bursty_unfixed", sampler, 300)
    rare = torch.from_numpy(np.isin(batch.class_index.numpy(), ZIPF.rare))
    mixed = (batch.is_rare == 1).any(1)
    assert torch.equal(batch.is_rare[mixed].bool(), rare[mixed])
    assert not bool(draw("random", sampler, 50).is_rare.any())


SETTINGS = [
    *((name, ZIPF) for name in CASES),
    ("bursty_mix", SLICED),
    ("random_unique", SLICED),
    ("bursty_mix", UNIFORM),
    ("no_support", UNIFORM),
]


def compare(name, partition, n_exact, n_fast):
    """Return the p-value of every quantity, exact against vectorised sequences."""
    exact = positions(draw(name, "exact", n_exact, partition, 1), partition)
    fast = positions(draw(name, "vectorized", n_fast, partition, 1), partition)
    recorded = summarize(exact, partition.n_classes)
    return p_values(fast, recorded, len(exact))


@pytest.mark.parametrize(("name", "partition"), SETTINGS)
def test_both_samplers_draw_alike(name, partition):
    """1,500 exact against 20,000 vectorised sequences; no quantity rejects at p < 1e-4."""
    p = compare(name, partition, 1500, 20_000)
    assert min(p.values()) >= 1e-4, p


@pytest.mark.slow
@pytest.mark.parametrize(("name", "partition"), SETTINGS)
def test_both_samplers_draw_alike_over_200000_sequences(name, partition, record_property):
    """20,000 exact against 200,000 vectorised sequences; no quantity rejects at p < 1e-4."""
    p = compare(name, partition, 20_000, 200_000)
    record_property("smallest_p", min(p.values()))
    assert min(p.values()) >= 1e-4, p


def broken_rules(batch, spec, partition):
    """Count, per rule that every sequence of a plan keeps, the sequences that break it."""
    classes, label, drawing = batch.class_index, batch.label, batch.exemplar_index
    length = classes.shape[1]
    parts = [branch.parts for branch in spec.plan.possible]
    same_class = classes[:, :, None] == classes[:, None]
    same_label = label[:, :, None] == label[:, None]
    same_item = same_class & (drawing[:, :, None] == drawing[:, None])
    held_out = torch.from_numpy(np.isin(classes.numpy(), partition.holdout))
    counts = {}
    if len(parts) == 1 and len(parts[0]) == 1:  # one part: no drawing may come twice
        counts["a drawing repeats"] = (same_item.sum((1, 2)) > length).sum()
    if all(part.class_type != "holdout" for b in parts for part in b):
        counts["holdout class"] = held_out.any(1).sum()
    if all(part.labeling.kind in ("ordered", "original") for b in parts for part in b):
        counts["label names another class"] = (same_class != same_label).any(2).any(1).sum()
    fewest = min(next((p.shots for p in b if p.draw == "fewshot"), 0) for b in parts)
    counts["too few copies"] = (same_class[:, -1, :-1].sum(1) < fewest).sum()
    counts["too few labels"] = (same_label[:, -1, :-1].sum(1) < fewest).sum()
    if all(p.draw == "no_support" for b in parts for p in b):
        counts["query in context"] = same_class[:, -1, :-1].any(1).sum()
    if all(p.draw == "unique" for b in parts for p in b):
        counts["a class repeats"] = (same_class.sum((1, 2)) > length).sum()
    return {rule: int(count) for rule, count in counts.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "partition"), SETTINGS)
def test_none_of_200000_sequences_breaks_a_rule(name, partition):
    broken = broken_rules(
        draw(name, "vectorized", 200_000, partition), make_spec(name, partition), partition
    )
    assert len(broken) >= 2
    assert not any(broken.values()), broken


def test_the_rules_see_a_broken_sequence():
    batch = draw("fewshot", "exact", 50)
    spec = make_spec("fewshot")
    assert not any(broken_rules(batch, spec, ZIPF).values())
    batch.exemplar_index[3] = batch.exemplar_index[3, 0]
    batch.class_index[5, -1] = (batch.class_index[5, -1] + 1) % N
    broken = broken_rules(batch, spec, ZIPF)
    assert broken["a drawing repeats"] == 1
    assert broken["too few copies"] == 1


def test_drawings_are_uniform_and_independent_of_the_place():
    """The query's drawing, and the pair (query, first of its class), are uniform: p >= 1e-4."""
    batch = draw("fewshot", "vectorized", 40_000)
    query = batch.exemplar_index[:, -1].numpy()
    even = np.full(DRAWINGS, 10_000_000)
    assert chi_square_p(np.bincount(query, minlength=DRAWINGS), even) >= 1e-4
    same = (batch.class_index[:, :-1] == batch.class_index[:, -1:]).float().argmax(1)
    other = batch.exemplar_index.gather(1, same[:, None])[:, 0].numpy()
    pairs = np.bincount(query * DRAWINGS + other, minlength=DRAWINGS**2).reshape(DRAWINGS, -1)
    assert pairs.trace() == 0
    off_diagonal = pairs[~np.eye(DRAWINGS, dtype=bool)]
    assert chi_square_p(off_diagonal, np.full(len(off_diagonal), 1_000_000)) >= 1e-4


def test_batches_are_a_pure_function_of_seed_and_step():
    spec = make_spec("bursty_mix")
    sampler = IndexSampler(spec, 32, 7)
    forward = [sampler.batch(step) for step in range(130)]
    fresh = IndexSampler(spec, 32, 7)
    for step in (129, 0, 64, 63, 65):
        again = fresh.batch(step)
        assert torch.equal(again.class_index, forward[step].class_index)
        assert torch.equal(again.exemplar_index, forward[step].exemplar_index)
        assert torch.equal(again.label, forward[step].label)
    labels = torch.stack([batch.label for batch in forward])
    assert len(labels.flatten(1).unique(dim=0)) == 130  # no batch repeats
    assert not torch.equal(IndexSampler(spec, 32, 8).batch(0).label, forward[0].label)


def test_batches_do_not_share_memory_with_the_cache_or_touch_the_global_stream():
    sampler = IndexSampler(make_spec("fewshot"), 8, 7)
    state = torch.get_rng_state()
    first = sampler.batch(0)
    kept = first.label.clone()
    first.label.fill_(-1)
    assert torch.equal(sampler.batch(0).label, kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_samplers_survive_pickling():
    sampler = IndexSampler(make_spec("fewshot"), 8, 7)
    sampler.batch(0)
    copy = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(copy.batch(300).label, sampler.batch(300).label)


def test_single_items_have_drawing_zero_and_random_rare_ones_are_negative(sampler):
    assert not bool(draw("fewshot", sampler, 20, n_exemplars=1).exemplar_index.any())
    args = {**BURSTY, "randomly_generate_rare": True}
    spec = SequenceSpec(ZIPF, make_plan(ZIPF, "get_bursty_seq", args))
    batch = SequenceDataset(spec, 200, 0, sampler=sampler)[0]
    rare = torch.from_numpy(np.isin(batch.class_index.numpy(), ZIPF.rare))
    assert torch.equal(batch.exemplar_index < 0, rare)
    different = batch.class_index[:, :, None] != batch.class_index[:, None]
    shared = batch.exemplar_index[:, :, None] == batch.exemplar_index[:, None]
    assert not bool((different & shared & rare[:, :, None]).any())


def test_distinct_classes_are_shuffled():
    """The likelier class is drawn first more often; the shuffle leaves no trace of that."""
    pair = ClassPartition(3, 1, 1, 1, zipf_exponent=1.0)
    plan = make_plan(
        pair, "get_random_seq", {"class_type": "zipfian", "seq_len": 2, "all_unique": True}
    )
    label = IndexSampler(SequenceSpec(pair, plan), 8000, 3).batch(0).label
    assert bool((label.sum(1) == 1).all())
    assert float(label[:, 0].float().mean()) == pytest.approx(0.5, abs=4 * (0.25 / 8000) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_exemplars": 5}, "5 drawings per class, .* need 9"),
        ({"n_exemplars": 0}, "use at least 9, or exactly 1"),
        ({"num_classes": 71}, "reach 71, but the head has 71"),
    ],
)
def test_specs_that_cannot_be_served_are_refused(changes, message):
    plan = make_plan(ZIPF, "get_random_seq", {"class_type": "zipfian", "seq_len": 9})
    with pytest.raises(ValueError, match=message):
        SequenceSpec(ZIPF, plan, **changes)


def test_random_rare_with_several_drawings_is_refused():
    args = {"class_type": "rare", "seq_len": 9, "randomly_generate_rare": True}
    with pytest.raises(ValueError, match="exemplars 'single'"):
        SequenceSpec(ZIPF, make_plan(ZIPF, "get_random_seq", args), 20)


def test_empty_batches_are_refused():
    with pytest.raises(ValueError, match="batch_size: 0"):
        IndexSampler(make_spec("fewshot"), 0, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sampling_on_a_gpu_keeps_the_rules():
    sampler = IndexSampler(make_spec("fewshot"), 512, 1, "cuda")
    batch = sampler.batch(3)
    assert batch.label.device.type == "cuda"
    item = batch.class_index * DRAWINGS + batch.exemplar_index
    assert bool((item.sort(1).values.diff() > 0).all())
    again = IndexSampler(make_spec("fewshot"), 512, 1, "cuda").batch(3)
    assert torch.equal(again.label, batch.label)

import pickle
import random

import numpy as np
import pytest

from pytorch_port.data.examples import (
    ExemplarExamples,
    IndexExamples,
    SymbolicExamples,
    rare_in_draw_order,
)
from pytorch_port.data.generator import SeqGenerator
from pytorch_port.data.partition import ClassPartition

PARTITION = ClassPartition(40, 24, 6, 10)
BURSTY = {
    "seq_len": 9,
    "shots": 3,
    "ways": 2,
    "p_bursty": 0.5,
    "p_bursty_zipfian": 0.5,
    "labeling_rare": "ordered",
}


def images(n_classes=40, n_exemplars=20, dtype=np.float32):
    """Images whose two pixels are class and exemplar: (N, n, 1, 2, 1)."""
    ids = np.indices((n_classes, n_exemplars))
    return np.moveaxis(ids, 0, -1)[:, :, None, :, None].astype(dtype)


class StoredImages:
    """One image per class, shown as it is: the readable twin of ``IndexExamples``."""

    indices = False

    def __init__(self, items):
        self.items, self.n_data_classes = items, len(items)

    def draw(self, classes, rng, random_rare):
        shown = self.items[classes].astype(np.float32)
        for label in rare_in_draw_order(classes, random_rare):
            shown[classes == label] = rng.randint(2, size=self.items.shape[1:])
        return shown


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def test_owned_streams_equal_the_global_ones():
    np.random.seed(3)
    random.seed(3)
    ours = SeqGenerator(SymbolicExamples(40), PARTITION, seed=3)
    shared = SeqGenerator(
        SymbolicExamples(40), PARTITION, np_random=np.random.mtrand._rand, py_random=random
    )
    for a, b in zip(
        take(ours.get_bursty_seq(**BURSTY), 20),
        take(shared.get_bursty_seq(**BURSTY), 20),
        strict=True,
    ):
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert ours.py_random.random() == random.random()
    assert ours.np_random.random_sample() == np.random.random_sample()


def test_positional_and_keyword_arguments_are_the_same():
    first = SeqGenerator(SymbolicExamples(40), PARTITION, seed=1)
    second = SeqGenerator(SymbolicExamples(40), PARTITION, seed=1)
    a = take(first.get_fewshot_seq("holdout", 4, 2, "unfixed", grouped=True), 3)
    b = take(
        second.get_fewshot_seq(
            class_type="holdout", shots=4, ways=2, labeling="unfixed", grouped=True
        ),
        3,
    )
    assert str(a) == str(b)
    with pytest.raises(ValueError, match="given twice"):
        first.get_fewshot_seq("holdout", class_type="rare", shots=1, ways=2)
    with pytest.raises(ValueError, match="at most 3"):
        first.get_mixed_seq(1, 2, 0.5, 4, 5)


def test_bad_arguments_are_refused_before_the_first_record():
    generator = SeqGenerator(SymbolicExamples(40), PARTITION)
    with pytest.raises(ValueError, match="unknown"):
        generator.get_random_seq(class_type="rarest", seq_len=9)


def test_generators_survive_pickling():
    generator = SeqGenerator(IndexExamples(40, 20), PARTITION, seed=5)
    take(generator.get_bursty_seq(**BURSTY), 7)
    copy = pickle.loads(pickle.dumps(generator))
    assert str(take(generator.get_bursty_seq(**BURSTY), 5)) == str(
        take(copy.get_bursty_seq(**BURSTY), 5)
    )


@pytest.mark.parametrize("noise_scale", [0.0, 0.1])
@pytest.mark.parametrize("method", ["get_bursty_seq", "get_fewshot_seq"])
def test_indices_stand_for_the_images_that_would_have_been_drawn(method, noise_scale):
    args = BURSTY if method == "get_bursty_seq" else {"class_type": "rare", "shots": 4, "ways": 2}
    pictures = SeqGenerator(ExemplarExamples(images()), PARTITION, noise_scale=noise_scale, seed=2)
    indices = SeqGenerator(
        IndexExamples(40, 20, item_shape=(1, 2, 1)), PARTITION, noise_scale=noise_scale, seed=2
    )
    for shown, known in zip(
        take(pictures.sequences(method, args), 30),
        take(indices.sequences(method, args), 30),
        strict=True,
    ):
        pair = np.stack([known["class_id"], known["exemplar_id"]], axis=1)
        assert np.abs(shown["example"][:, 0, :, 0] - pair).max() <= 6 * noise_scale
        assert shown["label"].tolist() == known["label"].tolist()
    assert pictures.np_random.random_sample() == indices.np_random.random_sample()
    assert pictures.py_random.random() == indices.py_random.random()


def test_noise_leaves_symbols_alone_but_draws():
    quiet = SeqGenerator(SymbolicExamples(40), PARTITION, seed=4)
    noisy = SeqGenerator(SymbolicExamples(40), PARTITION, noise_scale=0.1, seed=4)
    call = {"class_type": "rare", "shots": 4, "ways": 2}
    a, b = next(quiet.get_fewshot_seq(**call)), next(noisy.get_fewshot_seq(**call))
    assert set(b["example"]) <= set(PARTITION.rare)
    assert set(a["example"]) == set(b["example"])
    assert quiet.np_random.random_sample() != noisy.np_random.random_sample()


def test_random_rare_images_are_constant_within_a_part_and_shared_with_indices():
    bank = np.full((40, 3, 3, 1), 7.0, dtype=np.float32)
    args = {"class_type": "zipfian", "shots": 4, "ways": 2, "randomly_generate_rare": True}
    pictures = SeqGenerator(StoredImages(bank), PARTITION, seed=6)
    indices = SeqGenerator(IndexExamples(40, None, item_shape=(3, 3, 1)), PARTITION, seed=6)
    for _ in range(40):
        shown = next(pictures.get_fewshot_seq(**args))
        known = next(indices.get_fewshot_seq(**args))
        rare = np.isin(known["class_id"], PARTITION.rare)
        assert (known["exemplar_id"] < 0).tolist() == rare.tolist()
        assert (shown["example"][~rare] == 7).all()
        assert set(np.unique(shown["example"][rare])) <= {0.0, 1.0}
        for number in set(known["exemplar_id"][rare]):
            same = shown["example"][known["exemplar_id"] == number]
            assert (same == same[0]).all()
    assert pictures.np_random.random_sample() == indices.np_random.random_sample()


def test_random_rare_images_are_drawn_in_the_order_of_a_set():
    classes, rare = np.array([30, 3, 19, 3, 8]), np.array([19, 40, 3, 8])
    expected = set([np.int64(c) for c in classes]).intersection([np.int64(r) for r in rare])
    assert rare_in_draw_order(classes, rare) == [int(c) for c in expected]


def test_too_few_drawings_are_refused():
    generator = SeqGenerator(ExemplarExamples(images(n_exemplars=2)), PARTITION)
    with pytest.raises(ValueError, match="a class has 2 drawings"):
        next(generator.get_fewshot_seq(class_type="rare", shots=4, ways=2))


def test_random_rare_needs_single_images():
    args = {"class_type": "rare", "seq_len": 4, "randomly_generate_rare": True}
    with pytest.raises(ValueError, match="for symbols"):
        next(SeqGenerator(SymbolicExamples(40), PARTITION).get_random_seq(**args))
    with pytest.raises(ValueError, match="several exemplars"):
        next(SeqGenerator(ExemplarExamples(images()), PARTITION).get_random_seq(**args))


def test_partition_and_data_must_agree():
    with pytest.raises(ValueError, match="40 classes, but the data have 41"):
        SeqGenerator(SymbolicExamples(41), PARTITION)
    with pytest.raises(ValueError, match="noise_scale: -1"):
        SeqGenerator(SymbolicExamples(40), PARTITION, noise_scale=-1)

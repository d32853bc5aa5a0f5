import numpy as np
import pytest

from pytorch_port.data.partition import ClassPartition, class_ordering, zipf_weights


def test_partition_takes_rare_common_from_the_front_and_holdout_from_the_end():
    partition = ClassPartition(100, 60, 12, 8)
    order = class_ordering(100)
    assert partition.rare.tolist() == order[:60].tolist()
    assert partition.common.tolist() == order[60:72].tolist()
    assert partition.holdout.tolist() == order[-8:].tolist()
    assert sorted(order) == list(range(100))


def test_holdout_does_not_depend_on_the_other_counts():
    small, large = ClassPartition(1623, 80, 10, 10), ClassPartition(1623, 1603, 10, 10)
    assert small.holdout.tolist() == large.holdout.tolist()
    assert not set(large.non_holdout) & set(large.holdout)


def test_blocks_stay_together():
    order = class_ordering(104, 8).reshape(13, 8)
    assert (np.diff(order, axis=1) == 1).all()
    assert (order[:, 0] % 8 == 0).all()
    assert sorted(order[:, 0]) != order[:, 0].tolist()


def test_zipf_makes_the_last_common_class_most_frequent():
    weights = zipf_weights(4, 1.0)
    np.testing.assert_allclose(weights, np.array([1 / 4, 1 / 3, 1 / 2, 1]) / (25 / 12))
    assert len(set(zipf_weights(5, 0.0))) == 1


def test_zipf_for_common_and_rare_leaves_the_stored_weights_alone():
    partition = ClassPartition(100, 60, 12, 8, use_zipf_for_common_rare=True)
    before = partition.zipf_weights.copy()
    rare, common = partition.weights("rare"), partition.weights("common")
    assert partition.zipf_weights.tolist() == before.tolist()
    assert partition.weights("zipfian").sum() == pytest.approx(1)
    np.testing.assert_allclose(rare, before[:60] / before[:60].sum())
    np.testing.assert_allclose(common, before[60:] / before[60:].sum())
    assert len(set(partition.weights("holdout"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 90, 10, 10), "110 classes, but the data have 100"),
        ((100, -1, 10, 10), "n_rare_classes: -1 is negative"),
        ((100, 0, 0, 10), "0 classes to train on"),
    ],
)
def test_counts_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassPartition(*arguments)


def test_blocks_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="8 does not divide 100"):
        ClassPartition(100, 10, 10, 10, preserve_ordering_every_n=8)


def test_unknown_and_empty_class_types_are_refused():
    partition = ClassPartition(10, 5, 5)
    with pytest.raises(ValueError, match="did you mean 'zipfian'"):
        partition.classes("zipfan")
    with pytest.raises(ValueError, match="'holdout' has no classes"):
        partition.classes("holdout")

"""The symbolic set's one assertion."""

from __future__ import annotations

import pytest
import torch

from trainrig.data.symbolic import check_symbolic, symbolic_ids


def test_ids_count_up():
    assert torch.equal(symbolic_ids(3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="0 is not positive"):
        symbolic_ids(0)


def test_fitting_set_passes():
    check_symbolic(1623, n_partitioned=1623, num_classes=1623)
    check_symbolic(40, n_partitioned=30, num_classes=50)


def test_the_shipped_values_of_the_reference_are_refused():
    with pytest.raises(ValueError, match=r"1000 symbols for 1623 .* at least 1623"):
        check_symbolic(1000, n_partitioned=1623, num_classes=1623)


def test_ids_beyond_the_table_are_refused():
    with pytest.raises(ValueError, match="ids reach 99, the example table has 50 rows"):
        check_symbolic(100, n_partitioned=50, num_classes=50)

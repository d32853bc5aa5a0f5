"""Names to objects: duplicates and unknown names are refused."""

from __future__ import annotations

import pytest

from trainrig.registry import Registry


@pytest.fixture
def table():
    table = Registry("optimizer")
    table.register("adam")(dict)
    table.register("sgd")(list)
    return table


def test_register_returns_its_object_and_keeps_order(table):
    @table.register("new")
    def made():
        return 3

    assert made() == 3
    assert table["new"] is made
    assert list(table) == ["adam", "sgd", "new"]
    assert len(table) == 3
    assert dict(table)["adam"] is dict


def test_duplicate_is_refused_and_the_first_stays(table):
    with pytest.raises(ValueError, match="optimizer 'adam' is registered already"):
        table.register("adam")
    assert table["adam"] is dict


def test_unknown_names_the_nearest_and_all(table):
    with pytest.raises(KeyError) as caught:
        table["adm"]
    assert caught.value.args[0] == (
        "unknown optimizer 'adm'; did you mean 'adam'? (known: adam, sgd)"
    )
    assert "adm" not in table
    assert table.get("adm") is None

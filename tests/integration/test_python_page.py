"""docs/python.md: its examples run as they stand, all four systems and the tables over them."""

from __future__ import annotations

import doctest

import pytest
import torch


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_examples_give_what_the_page_says(repo_root, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(repo_root / "configs")
    monkeypatch.chdir(tmp_path)
    page = repo_root / "docs/python.md"
    try:
        failed, tried = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    finally:
        torch.use_deterministic_algorithms(False)
    assert tried > 30
    assert failed == 0

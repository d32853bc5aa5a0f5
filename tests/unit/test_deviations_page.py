"""docs/deviations.md has an entry for every `Deviation:` mark in the source, and no other."""

from __future__ import annotations

import re
from collections import Counter


def test_marks_and_entries_agree(repo_root):
    source = repo_root / "src"
    marks = Counter()
    for path in source.rglob("*.py"):
        found = len(re.findall(r"\bDeviation:", path.read_text(encoding="utf-8")))
        if found:
            marks[path.relative_to(source).as_posix()] = found
    page = (repo_root / "docs" / "deviations.md").read_text(encoding="utf-8")
    assert Counter(re.findall(r"Marked in `([\w/]+\.py)`", page)) == marks


def test_entries_are_numbered_without_gap(repo_root):
    page = (repo_root / "docs" / "deviations.md").read_text(encoding="utf-8")
    numbers = [int(n) for n in re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers

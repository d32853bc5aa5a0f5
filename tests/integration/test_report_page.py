"""The page of a 20-run sweep in a real browser: offline, sortable, with values under the mouse."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from pathlib import Path

import pytest
from browser import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ENVIRONMENT = {"command": ["python", "t.py"], "git_revision": "abc", "versions": {"torch": "2"}}


def write_run(path: Path, *, lr: float, seed: int, best: float, steps: int = 5000) -> None:
    """Write what a run of an experiment that nobody describes leaves behind."""
    (path / "logs").mkdir(parents=True)
    config = {"optimizer": {"lr": lr, "name": "sgd"}, "seed": seed, "width": 16}
    (path / "config.json").write_text(json.dumps(config))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (path / "status.json").write_text(json.dumps({"status": "complete", "step": steps}))
    rows = []
    for step in range(10, steps + 1, 10):
        share = best * (1 - math.exp(-step / 900))
        rows.append({"step": step, "split": "train", "loss": 2.3 - share, "grad_l2": 1 / step})
        if step % 50 == 0:
            rows.append({"step": step, "split": "test", "loss": 2.4 - share, "accuracy": share})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "logs/metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Ten learning rates by two seeds."""
    folder = tmp_path_factory.mktemp("sweep") / "rates"
    for i in range(10):
        for seed in (0, 1):
            lr = round(0.01 * (i + 1), 2)
            path = folder / f"lr{lr}_seed{seed}"
            write_run(path, lr=lr, seed=seed, best=0.3 + 0.06 * i + 0.01 * seed)
    return folder


@pytest.fixture(scope="module")
def page(sweep):
    from make_report import main

    start = time.process_time()
    assert main([str(sweep)]) == 0
    assert time.process_time() - start <= 5.0  # the bound of a 20-run sweep
    return sweep / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(PROGRAMS)} is installed")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def column(browser, title):
    """Return the texts of a column of the table of runs, in the order shown."""
    return browser.value(
        "(() => { for (const t of document.querySelectorAll('.table table')) {"
        "const heads = [...t.tHead.rows[0].cells].map(h => h.textContent);"
        f"const i = heads.indexOf({title!r}); if (heads[0] === 'run' && i >= 0)"
        "return [...t.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[i].textContent); }"
        "return null; })()"
    )


def click_heading(browser, title):
    browser.value(
        "(() => { for (const b of document.querySelectorAll('th button'))"
        f"if (b.textContent === {title!r} && b.closest('tr').cells[0].textContent === 'run')"
        "{ b.click(); return; } throw Error('no such heading'); })()"
    )


def test_the_page_is_one_small_file(page):
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size <= 3_000_000
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.search(r"url\((?!data:)|@import", text)


def test_it_loads_without_network_or_complaint(browser, page):
    browser.open(page)
    asked = [address for address in browser.requests if not address.startswith("data:")]
    assert {address.partition(":")[0] for address in asked} == {"file"}
    assert {Path(address).name for address in asked} == {"report.html"}
    assert browser.console == []
    assert browser.value("document.querySelectorAll('.uplot canvas').length") == 1


def test_a_heading_sorts_numbers_as_numbers_and_again_the_other_way(browser, page):
    browser.open(page)
    assert column(browser, "seed")[:4] == ["0", "1", "0", "1"]
    click_heading(browser, "test accuracy / %")
    up = [float(text) for text in column(browser, "test accuracy / %")]
    assert up == sorted(up)
    assert len(set(up)) == 20
    click_heading(browser, "test accuracy / %")
    assert column(browser, "run")[0] == "lr0.1_seed1"
    click_heading(browser, "run")
    names = column(browser, "run")
    assert (names[0], names[-1]) == ("lr0.01_seed0", "lr0.1_seed1")
    browser.value(
        "(() => { const i = [...document.querySelectorAll('.filter')].at(-1);"
        "i.value = 'lr0.05_seed1'; i.dispatchEvent(new Event('input')); })()"
    )
    assert column(browser, "run") == ["lr0.05_seed1"]


def test_the_mouse_shows_values_and_the_choice_changes_the_curve(browser, page):
    browser.open(page)
    legend = "document.querySelector('.u-legend').innerText"
    assert "lr 0.1" in browser.value(legend)
    before = browser.value(legend)
    browser.hover(".u-over")
    shown = browser.value(legend)
    assert shown != before
    values = re.findall(r"lr 0\.1 \(mean of 2\):?\s*([\d.]+)", shown)
    assert len(values) == 1
    step = int(re.search(r"step:?\s*([\d,]+)", shown)[1].replace(",", ""))
    share = (0.3 + 0.54 + 0.005) * (1 - math.exp(-step / 900))
    split = browser.value("document.querySelector('.controls select').selectedOptions[0].text")
    expected = {"test accuracy": 100 * share, "test loss": 2.4 - share}[split]
    assert float(values[0]) == pytest.approx(expected, rel=1e-3)
    listed = "document.querySelectorAll('.u-legend tr.u-series:not(.unlisted)').length - 1"
    assert browser.value(listed) == 10
    browser.value("document.querySelector('.runs input').click()")
    assert browser.value(listed) == 20
    browser.value(
        "(() => { const s = document.querySelector('.controls select'); s.value = '1';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    other = browser.value("document.querySelector('.controls select').selectedOptions[0].text")
    assert other != split
    assert browser.console == []


@pytest.mark.parametrize("dark", [False, True])
def test_ink_is_readable_on_paper_in_light_and_dark(browser, page, dark):
    browser.open(page, dark=dark)
    colours = browser.value(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    ink, paper = (_luminance(text) for text in colours)
    assert (paper < 0.1) == dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG 2.1, level AAA


def _luminance(colour: str) -> float:
    values = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

"""A page's content as one HTML file that needs nothing else: no network, no second file.

The curves are drawn by uPlot 1.6.32 (MIT licence, beside this module), inlined.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainrig.files import write_atomically
from trainrig.report.content import (
    Chart,
    Folded,
    Item,
    Link,
    Page,
    Picture,
    Section,
    Series,
    Table,
    Tile,
)

ASSETS = Path(__file__).parent / "assets"
MAX_POINTS = 300  # of a line; more than its pixels show nothing more
MAX_PICTURE_BYTES = 1_800_000  # of all pictures before encoding; the rest become links
DIGITS = 5


def write_page(path: Path, page: Page) -> Path:
    """Write ``page`` to ``path`` in one step and return the path."""
    renderer = _Renderer(path.parent)
    body = [_header(page), *map(renderer.section, page.sections)]
    scripts = (
        [_asset("uplot.min.js"), _asset("page.js")] if renderer.charts else [_asset("page.js")]
    )
    data = json.dumps(renderer.charts, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',  # or the browser would ask for one
        f"<title>{html.escape(page.title)}</title>",
        f"<style>{_asset('uplot.min.css')}{_asset('page.css')}</style></head><body><main>",
        *body,
        "</main>",
        f'<script type="application/json" id="charts">{data}</script>',
        *(f"<script>{script}</script>" for script in scripts),
        "</body></html>",
    ]
    write_atomically(path, "\n".join(parts) + "\n")
    return path


class _Renderer:
    """Turns sections into HTML, collecting the charts' data and counting the pictures' bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.charts: list[list[dict[str, Any]]] = []
        self.picture_bytes = 0

    def section(self, section: Section) -> str:
        charts = [item for item in section.items if isinstance(item, Chart)]
        parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        if charts:
            parts.append(self._charts(charts))
        parts += [self._item(item) for item in section.items if not isinstance(item, Chart)]
        return "\n".join([*parts, "</section>"])

    def _charts(self, charts: Sequence[Chart]) -> str:
        self.charts.append([_chart_data(chart) for chart in charts])
        options = "".join(
            f'<option value="{i}">{html.escape(chart.title)}</option>'
            for i, chart in enumerate(charts)
        )
        return (
            f'<div class="chart" data-charts="{len(self.charts) - 1}"><div class="controls">'
            f'<select aria-label="curve">{options}</select>'
            '<label class="runs"><input type="checkbox"> every run</label>'
            '<label><input type="checkbox" class="log"> log scale</label>'
            '<span class="hint">hover for values, drag to zoom, double click to go back, click a '
            "name to hide its line</span></div>"
            '<div class="plot"></div></div>'
        )

    def _item(self, item: Item) -> str:
        if isinstance(item, Table):
            return self._table(item)
        if isinstance(item, Picture):
            return self._picture(item)
        assert isinstance(item, Folded)
        title, text = html.escape(item.title), html.escape(item.text)
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"

    def _table(self, table: Table) -> str:
        if not table.rows:
            return ""
        titles = list(dict.fromkeys(key for row in table.rows for key in row))
        head = "".join(
            f'<th scope="col"><button>{html.escape(title)}</button></th>' for title in titles
        )
        body = "\n".join(
            "<tr>" + "".join(self._cell(row.get(title)) for title in titles) + "</tr>"
            for row in table.rows
        )
        return (
            f'<div class="table"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _cell(self, value: Any) -> str:
        if isinstance(value, Link):
            return f"<td>{self.link(value)}</td>"
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f'<td class="number" data-value="{value!r}">{shown(value)}</td>'
        return f"<td>{'' if value is None else html.escape(str(value))}</td>"

    def link(self, link: Link) -> str:
        target = os.path.relpath(link.path, self.folder)
        return f'<a href="{html.escape(Path(target).as_posix())}">{html.escape(link.text)}</a>'

    def _picture(self, picture: Picture) -> str:
        caption = html.escape(picture.caption or picture.path.name)
        content = picture.path.read_bytes()
        if self.picture_bytes + len(content) > MAX_PICTURE_BYTES:
            link = self.link(Link(picture.path.name, picture.path))
            return f"<p>{caption}: {link} (too large to be part of this page)</p>"
        self.picture_bytes += len(content)
        data = base64.b64encode(content).decode()
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def shown(value: float) -> str:
    """Return a number as a reader wants it: whole numbers whole, others with four digits.

    >>> shown(3500), shown(0.77123), shown(float("nan"))
    ('3500', '0.7712', 'nan')
    """
    if isinstance(value, int) or (
        math.isfinite(value) and value == int(value) and abs(value) < 1e9
    ):
        return str(int(value))
    return f"{value:.4g}"


def _header(page: Page) -> str:
    parts = [f"<h1>{html.escape(page.title)}</h1>"]
    if page.lead:
        parts.append(f'<p class="lead">{html.escape(page.lead)}</p>')
    parts += [f'<p class="warning">{html.escape(text)}</p>' for text in page.warnings]
    if page.tiles:
        parts.append(f'<div class="tiles">{"".join(map(_tile, page.tiles))}</div>')
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in page.notes]
    return "\n".join(parts)


def _tile(tile: Tile) -> str:
    label, value, note = map(html.escape, (tile.label, tile.value, tile.note))
    return (
        f'<div class="tile"><span class="label">{label}</span><span class="value">{value}</span>'
        f'<span class="note">{note}</span></div>'
    )


def _chart_data(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "x": chart.x_label,
        "y": chart.y_label or chart.title,
        "log": chart.log_y,
        "series": [_series_data(series) for series in chart.series],
    }


def _series_data(series: Series) -> dict[str, Any]:
    step = max(1, math.ceil(len(series.x) / MAX_POINTS))
    last = len(series.x) - 1
    kept = [i for i in range(len(series.x)) if i % step == 0 or i == last]
    data: dict[str, Any] = {"name": series.name, "colour": series.colour}
    data |= {"dashed": int(series.dashed), "thin": int(series.thin)}
    for key in ("x", "y", "low", "high"):
        values = getattr(series, key)
        if len(values):
            data[key] = _rounded(values[i] for i in kept)
    return data


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [
        None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
        for value in values
    ]


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")

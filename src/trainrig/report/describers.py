"""How an experiment says what its runs are, without the core knowing its name.

An experiment registers one ``Describer`` as an entry point of its distribution:

    [project.entry-points."trainrig.describers"]
    mine = "my_experiment.describe:DESCRIBER"

Without one its run directories are reported all the same, by what their files say.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trainrig.report.content import Chart, Section, Tile
from trainrig.report.records import RunRecord, read_run, run_directories
from trainrig.run_status import FINAL, read_status

GROUP = "trainrig.describers"


@dataclass(frozen=True, slots=True)
class Metric:
    """A logged scalar worth a column and a curve.

    Attributes:
        split: the rows it is logged in.
        key: its name there.
        label: what a reader calls it.
        percent: a share in 0..1, shown in per cent.
        average: rows that a run's figure is the mean of: the last ones.
    """

    split: str
    key: str
    label: str
    percent: bool = False
    average: int = 1

    def of(self, run: RunRecord) -> tuple[float | None, float | None]:
        """Return what a run reached, and its standard error where that is a mean."""
        if self.average == 1:
            return run.value(self.split, self.key), None
        return run.headline(self.split, self.key, self.average)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What an experiment says of a folder of its runs.

    Attributes:
        title: the page's heading.
        lead: the answer in a sentence or two.
        warnings: what must be known first.
        notes: lines in small print.
        tiles: headline figures.
        metrics: in the order of their weight; empty lets the core choose.
        hidden_keys: configuration keys (or prefixes) that tell nothing about differences.
        key_names: what a reader calls a dotted configuration key, in legends and tables.
        charts: in place of the curves that the core draws from the rows.
        captions: of the folder's PNG files by name; others are shown without.
        sections: tables and pictures of its own, shown after the curves.
        whole: these sections are the page; the core adds files only.
    """

    title: str
    lead: str = ""
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    metrics: Sequence[Metric] = ()
    hidden_keys: Sequence[str] = ()
    key_names: Mapping[str, str] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    whole: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What the terminal view shows of an experiment's run directories.

    Attributes:
        metrics: columns, in this order; the last row that has one counts.
        unit: what a run's length is given in.
        total: configuration key (dotted) of that length.
        key: what a row calls the units done.
        splits: rows whose ``key`` counts them; empty means all.
        label: configuration → a run's name, where its folder's does not tell.
    """

    metrics: Sequence[Metric]
    unit: str = "step"
    total: str
    key: str = "step"
    splits: Sequence[str] = ()
    label: Callable[[Mapping[str, Any]], str] | None = None


def no_runs(path: Path) -> list[RunRecord]:
    """Return no run: all of an experiment's runs are run directories."""
    del path
    return []


def nothing(config: Mapping[str, Any]) -> bool:
    """Own no run directory."""
    del config
    return False


@dataclass(frozen=True, slots=True)
class Describer:
    """An experiment's part of reports and figures.

    Attributes:
        describe: (folder, its runs) → a description, or None for a folder of another experiment.
        find_runs: runs that are no run directories (foreign result files) at or below a folder.
        owns: configuration of a run directory → whether it is of this experiment.
        watched: what the terminal view shows of those.
        redraw: ``module:function`` that writes every figure whose data lie in a folder and returns
            the files; imported only then, since watching draws nothing.
    """

    describe: Callable[[Path, Sequence[RunRecord]], Description | None]
    find_runs: Callable[[Path], list[RunRecord]] = no_runs
    owns: Callable[[Mapping[str, Any]], bool] = nothing
    watched: Watched | None = None
    redraw: str | None = None


@cache
def describers() -> dict[str, Describer]:
    """Return the describers of every installed distribution, by name."""
    found = sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry.load() for entry in found}


def owner(config: Mapping[str, Any]) -> Describer | None:
    """Return the describer of the experiment that a run directory's configuration belongs to."""
    return next((one for one in describers().values() if one.owns(config)), None)


def find_runs(path: Path, *, at_work: bool = False) -> list[RunRecord]:
    """Return every run at or below ``path``, whichever experiment wrote it.

    Args:
        path: a run, a sweep, or a folder of them.
        at_work: also unfinished runs whose directories are hidden until they have a result.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a run's files are damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder; give a run, a sweep or a results folder")
    folder = path if path.is_dir() else path.parent
    own = [run for describer in describers().values() for run in describer.find_runs(folder)]
    known = {run.path for run in own}
    runs = [
        read_run(one, one.relative_to(folder).as_posix() if one != folder else folder.name)
        for one in run_directories(folder, hidden=at_work)
        if one not in known
        and not (one.name.startswith(".") and read_status(one)["status"] in FINAL)
    ]
    return runs + own


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Return the first description that an experiment gives of ``folder``."""
    for describer in describers().values():
        description = describer.describe(folder, runs)
        if description is not None:
            return description
    return None


def redraw(folder: Path) -> list[Path]:
    """Draw again, from the tables in ``folder``, the figures of experiments and benchmarks.

    Returns:
        The PNG and PDF files written.

    Raises:
        ValueError: a table is malformed; file and line are named.
    """
    from trainrig.plotting import speed  # describing draws nothing

    named = [one.redraw for one in describers().values() if one.redraw is not None]
    drawn = [path for name in named for path in pkgutil.resolve_name(name)(folder)]
    return drawn + speed.redraw(folder)

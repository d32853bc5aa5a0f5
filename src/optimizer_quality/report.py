"""From run directories to the comparison's files: a CSV and a figure per measure, one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optimizer_quality.comparison import MEASURES, Settings, Work
from optimizer_quality.feature_images import save_features, write_feature_images
from optimizer_quality.figures import DRAW
from optimizer_quality.solutions import load_images, load_solutions
from trainrig.errors import nearest
from trainrig.files import write_json
from trainrig.plotting.style import paper_style, save_figure
from trainrig.report.write import write_report
from trainrig.seeding import make_deterministic
from trainrig.tracking.tables import write_table


def compare(
    paths: Sequence[Path],
    output_dir: Path,
    settings: Settings,
    *,
    data_dir: str | None = None,
    only: Sequence[str] = (),
    say: Callable[[str], Any] = lambda line: None,
) -> Path:
    """Measure the runs and write ``{measure}.csv``, ``{measure}.png`` and ``report.html``.

    Args:
        paths: finished run directories of one network and data set.
        output_dir: where the files go.
        settings: how thorough to be.
        data_dir: folder of data sets; default what the runs used.
        only: measures to take; default all.
        say: takes a line when a measure is done.

    Returns:
        The path of the page.

    Raises:
        ValueError: an unknown measure, or runs that cannot be compared.
        FileNotFoundError: no such run or data.
    """
    for name in only:
        if name not in MEASURES:
            known = ", ".join(MEASURES)
            raise ValueError(f"measure {name!r}{nearest(name, MEASURES)} (known: {known})")
    make_deterministic()
    solutions = load_solutions(paths)
    images = load_images(
        solutions,
        data_dir,
        n_probe=settings.n_probe,
        n_hessian=settings.n_hessian,
        n_statistics=settings.n_statistics,
        n_clean=settings.n_clean,
    )
    cache = output_dir / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    work = Work(solutions, images, settings, cache, {}, {}, {}, {})
    tables = {}
    for name, measure in MEASURES.items():
        if only and name not in only:
            continue
        tables[name] = measure.compute(work)
        write_table(tables[name], output_dir / f"{name}.csv", measure.columns)
        if name == "features":
            write_feature_images(work.pictures, output_dir)
            save_features(output_dir)
        else:
            with paper_style():
                save_figure(DRAW[name](tables[name]), output_dir / f"{name}.png")
        say(f"{name}: {len(tables[name])} rows")
    write_json(output_dir / "comparison.json", {"notes": notes(work)})
    return write_report(output_dir)


def notes(work: Work) -> list[str]:
    """Return what a reader must know about the runs, the data and the settings."""
    solutions, settings = work.solutions, work.settings
    config = solutions[0].config
    epochs = sorted({solution.config.num_epochs for solution in solutions})
    rates = sorted({f"{s.optimizer} lr {s.config.optimizer.lr}" for s in solutions})
    lines = [
        f"{len(solutions)} runs of {config.model} on {work.images.source}, "
        f"{' or '.join(map(str, epochs))} epochs, batch {config.batch_size}; {', '.join(rates)}.",
        f"CKA, activations and lines: {min(settings.n_probe, len(work.images.data.test_labels))} "
        f"test images. Hessian: {sum(len(y) for _, y in work.images.train)} training images, "
        f"{settings.lanczos_steps} Lanczos steps, {settings.trace_probes} trace probes. Lines: "
        f"{settings.n_points} points. Runs of one seed share split, start and order of images.",
    ]
    if config.train_items:
        lines.append(f"Trained on the first {config.train_items} images of the training part only.")
    if work.images.data.synthetic:
        lines.append("The data are drawn, not photographed: this page shows that the tools work.")
    return lines

"""From run directories to the comparison's files: a CSV and a figure per measure, one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optimizer_quality.comparison import MEASURES, Settings, Work
from optimizer_quality.feature_images import save_features, write_feature_images
from optimizer_quality.figures import DRAW
from optimizer_quality.measures.curvature import COORDINATES, HessianOperator
from optimizer_quality.measures.predictions import predict
from optimizer_quality.measures.pruning import SCOPES, SPARSITIES
from optimizer_quality.measures.robustness import CORRUPTIONS, N_STRENGTHS
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
    say(
        f"about {max(estimate_seconds(work, only) / 60, 0.1):.1f} minutes for {len(solutions)} runs"
    )
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


def estimate_seconds(work: Work, only: Sequence[str] = ()) -> float:
    """Return about how long the measures will take, from one pass and one product of the Hessian.

    What the cache holds is not known here, so a comparison that continues is faster.
    """
    settings, model = work.settings, work.solutions[0].model
    probe = work.images.probe[:1]
    size = len(probe[0][1])
    predict(model, probe)  # the first pass is slower
    began = time.perf_counter()
    predict(model, probe)
    image = (time.perf_counter() - began) / size
    n, pairs = len(work.solutions), len(work.pairs)
    kinds = len({(pair.kind, pair.labels["same_seed"]) for pair in work.pairs})
    lines = min(pairs, kinds * (settings.lines_per_kind or pairs))
    per_line = 3 * settings.n_points * (settings.n_probe + 2 * settings.n_statistics)
    seconds = {
        "accuracy": n * image * (len(work.images.data.test_labels) + settings.n_clean),
        "robustness": n * image * len(CORRUPTIONS) * N_STRENGTHS * settings.n_shift,
        "barrier": lines * image * (per_line + 4 * settings.n_statistics),
        "cka": 5 * n * image * settings.n_probe,
        "pruning": n * image * len(SCOPES) * len(SPARSITIES) * settings.n_probe,
        "probes": n * image * (settings.n_probe + settings.n_statistics),
        "activations": 3 * n * image * settings.n_probe,
    }
    if not only or "hessian" in only:
        operator = HessianOperator(model, work.images.train[:1])
        began = time.perf_counter()
        operator(operator.like)
        product = (time.perf_counter() - began) * len(work.images.train)
        steps = settings.lanczos_steps + 0.6 * settings.trace_probes  # those share a graph
        seconds["hessian"] = n * len(COORDINATES) * steps * product
    return sum(value for name, value in seconds.items() if not only or name in only)


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

"""Performance profiles over problems, as in AlgoPerf (Dahl et al., arXiv:2306.07179, sec. 4.3).

An optimizer's time on a problem is the number of epochs to the published threshold. Its profile at
tau is the share of problems that it solves within tau times the fastest optimizer's time. On each
problem only runs of the greatest length take part: whether a shorter one would have arrived is not
known.
"""

from __future__ import annotations

import math

import numpy as np

from deepobs.analyzer.aggregate import (
    best_setting,
    choose_metric,
    of_length,
    published_speed,
    summarise,
)
from deepobs.analyzer.baselines import OPTIMIZERS, load_baselines
from deepobs.analyzer.results import Results


def times_to_threshold(results: Results, *, published: bool = True) -> dict[str, dict[str, float]]:
    """Return ``{optimizer: {problem: epochs}}``, the mean of the runs that arrive.

    Infinite where fewer than half do. An optimizer is absent where all its runs, or the published
    ones, are shorter or longer than the longest of ours; ``left_out`` names those.
    """
    times: dict[str, dict[str, float]] = {}
    for problem in results.testproblems:
        length = longest_run(results, problem)
        for optimizer in results.optimizers(problem):
            setting = best_setting(results, problem, optimizer, epochs=length)
            if setting is None:
                continue
            metric = choose_metric(of_length(results.of(problem, optimizer), length))
            summary = summarise(setting, metric)
            if summary.reached is not None:
                time = _time(summary.speed, summary.reached, summary.n)
                times.setdefault(optimizer, {})[problem] = time
        for row in load_baselines().rows if published else ():
            if (row["tp"], row["N"]) == (problem, length):
                name = f"{OPTIMIZERS[row['opt']]} (published)"
                time = _time(published_speed(row), row["nconv"], row["n"])
                times.setdefault(name, {})[problem] = time
    return times


def _time(speed: float | None, reached: int, n: int) -> float:
    return speed if speed is not None and 2 * reached >= n else math.inf


def longest_run(results: Results, testproblem: str) -> int:
    """Return the greatest number of epochs of a problem's runs."""
    return max(
        setting.runs[0].num_epochs
        for optimizer in results.optimizers(testproblem)
        for setting in results.of(testproblem, optimizer)
    )


def left_out(results: Results) -> list[str]:
    """Return a phrase for each optimizer that takes no part on a problem, its runs being shorter.

    The published baselines, where their length is another, count as one.
    """
    found = []
    for problem in results.testproblems:
        length = longest_run(results, problem)
        shorter = [
            name
            for name in results.optimizers(problem)
            if best_setting(results, problem, name, epochs=length) is None
        ]
        rows = [row for row in load_baselines().rows if row["tp"] == problem]
        shorter += ["published"] if any(row["N"] != length for row in rows) else []
        if shorter:
            found.append(f"{problem}: {', '.join(shorter)} (not of {length} epochs)")
    return found


def performance_profile(
    times: dict[str, dict[str, float]], taus: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each optimizer's share of problems solved within ``taus`` times the fastest.

    Problems that nobody solves count as unsolved by all; absent ones as unsolved.
    """
    problems = sorted({problem for per_problem in times.values() for problem in per_problem})
    fastest = {
        problem: min(per_problem.get(problem, math.inf) for per_problem in times.values())
        for problem in problems
    }
    profiles = {}
    for optimizer, per_problem in times.items():
        ratios = []
        for problem in problems:
            time = per_problem.get(problem, math.inf)
            ratios.append(math.inf if math.isinf(time) else time / max(fastest[problem], 1e-12))
        profiles[optimizer] = np.array([np.mean(np.array(ratios) <= tau) for tau in taus])
    return profiles

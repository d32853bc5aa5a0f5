"""Performance profiles over problems, as in AlgoPerf (Dahl et al., arXiv:2306.07179, sec. 4.3).

An optimizer's time on a problem is the number of epochs to the published threshold. Its profile at
tau is the share of problems that it solves within tau times the fastest optimizer's time.
"""

from __future__ import annotations

import math

import numpy as np

from deepobs.analyzer.aggregate import best_setting, choose_metric, summarise
from deepobs.analyzer.baselines import OPTIMIZERS, load_baselines
from deepobs.analyzer.results import Results


def times_to_threshold(results: Results, *, published: bool = True) -> dict[str, dict[str, float]]:
    """Return ``{optimizer: {problem: epochs}}``; infinite where fewer than half the runs arrive."""
    times: dict[str, dict[str, float]] = {}
    for problem in results.testproblems:
        for optimizer in results.optimizers(problem):
            setting = best_setting(results, problem, optimizer)
            assert setting is not None  # the optimizer has runs
            summary = summarise(setting, choose_metric(setting))
            if summary.speed is not None:
                solved = 2 * summary.reached >= summary.n
                times.setdefault(optimizer, {})[problem] = summary.speed if solved else math.inf
    if published:
        for row in load_baselines().rows:
            if row["tp"] in results.settings:
                solved = 2 * row["nconv"] >= row["n"]
                name = f"{OPTIMIZERS[row['opt']]} (published)"
                times.setdefault(name, {})[row["tp"]] = row["speed"] if solved else math.inf
    return times


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


def profile_score(profile: np.ndarray, taus: np.ndarray) -> float:
    """Return the normalised area under a profile, in [0, 1]."""
    return float(np.trapezoid(profile, taus) / (taus[-1] - taus[0]))

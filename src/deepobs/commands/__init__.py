"""DeepOBS from the command line: ``trainrig deepobs``."""

from __future__ import annotations

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "run": "an optimizer on a test problem, or all problems with --smoke",
    "tune": "grid, random or Bayesian search",
    "plot": "tables and figures over the published baselines",
    "estimate": "an optimizer's runtime overhead against SGD",
    "prepare": "the data sets of the problems below one folder",
}

#: For ``trainrig verify``: the module with ``run(golden)``, and what it compares.
PARITY = ("deepobs.parity", "DeepOBS: test problems, data pipelines, runner")

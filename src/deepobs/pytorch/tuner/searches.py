"""Grid, random and Bayesian search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deepobs.pytorch.runners.hyperparameters import Specification
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.settings import check_testproblem
from deepobs.pytorch.tuner.trials import Trial
from deepobs.pytorch.tuner.tuner import Tuner, complete
from trainrig.launch.options import LaunchOptions
from trainrig.repeats import canonical
from trainrig.seeding import derive_seed

#: Learning rates of the published baselines: 10^(-5 + k/5), k = 0..35.
PUBLISHED_LR_GRID = tuple(10.0 ** (-5 + k / 5) for k in range(36))


class Distribution(Protocol):
    """What random search draws from; every frozen scipy distribution is one."""

    def rvs(self, *, random_state: Any = None) -> Any:
        """Return one draw."""


class log_uniform:  # noqa: N801 - the original's name
    """Draws ``base ** U(a, b)``."""

    def __init__(self, a: float, b: float, base: float = 10.0) -> None:
        if not a < b:
            raise ValueError(f"log_uniform: a={a} is not below b={b}")
        self.a, self.b, self.base = a, b, base

    def rvs(self, *, random_state: np.random.RandomState | None = None) -> float:
        """Return one draw."""
        source = np.random if random_state is None else random_state
        return float(self.base ** source.uniform(self.a, self.b))


class uniform:  # noqa: N801 - beside log_uniform
    """Draws ``U(a, b)``."""

    def __init__(self, a: float, b: float) -> None:
        if not a < b:
            raise ValueError(f"uniform: a={a} is not below b={b}")
        self.a, self.b = a, b

    def rvs(self, *, random_state: np.random.RandomState | None = None) -> float:
        """Return one draw."""
        return float((np.random if random_state is None else random_state).uniform(self.a, self.b))


class GridSearch(Tuner):
    """Every combination of a grid.

    Args:
        optimizer_class: as for the runner.
        hyperparam_names: as for the runner.
        grid: ``{name: values}``.
        ressources: upper limit for the number of combinations.
        runner: class of the runner.
        options: see ``Tuner``.

    Raises:
        ValueError: the grid has more combinations than ``ressources``.
    """

    def __init__(
        self,
        optimizer_class: Callable[..., Any],
        hyperparam_names: Specification,
        grid: Mapping[str, Sequence[Any]],
        ressources: int,
        runner: type[PTRunner],
        **options: Any,
    ) -> None:
        super().__init__(optimizer_class, hyperparam_names, ressources, runner, **options)
        size = math.prod(len(values) for values in grid.values())
        if not 0 < size <= ressources:
            raise ValueError(f"grid: {size} combinations; 1 to ressources = {ressources} expected")
        self.grid = {name: list(values) for name, values in grid.items()}

    def propose(self, random_seed: int) -> list[dict[str, Any]]:
        """Return all combinations, the last name varying fastest.

        Raises:
            ValueError: two of them are equal.
        """
        combinations = itertools.product(*self.grid.values())
        settings = [
            complete(self.specification, dict(zip(self.grid, values, strict=True)))
            for values in combinations
        ]
        for place, setting in enumerate(settings):
            if canonical(setting) in map(canonical, settings[:place]):
                raise ValueError(f"grid: {setting} is there twice; give different values")
        return settings


class RandomSearch(Tuner):
    """Independent draws.

    Args:
        optimizer_class: as for the runner.
        hyperparam_names: as for the runner.
        distributions: ``{name: object with rvs(random_state=...)}``.
        ressources: number of draws.
        runner: class of the runner.
        options: see ``Tuner``.
    """

    def __init__(
        self,
        optimizer_class: Callable[..., Any],
        hyperparam_names: Specification,
        distributions: Mapping[str, Distribution],
        ressources: int,
        runner: type[PTRunner],
        **options: Any,
    ) -> None:
        super().__init__(optimizer_class, hyperparam_names, ressources, runner, **options)
        self.distributions = dict(distributions)

    def propose(self, random_seed: int) -> list[dict[str, Any]]:
        """Return the draws of one seed."""
        source = np.random.RandomState(derive_seed(random_seed, "random search") % 2**32)
        return [
            complete(
                self.specification,
                {name: d.rvs(random_state=source) for name, d in self.distributions.items()},
            )
            for _ in range(self.ressources)
        ]


class GP(Tuner):
    """Bayesian optimisation by an installed library, one setting after the other.

    Args:
        optimizer_class: as for the runner.
        hyperparam_names: as for the runner.
        bounds: ``{name: (low, high)}``.
        ressources: number of settings.
        runner: class of the runner.
        log_scale: names searched on a logarithmic scale; ``lr`` by default.
        sampler: ``tpe``, ``gp`` or ``random``, of optuna.
        options: see ``Tuner``.

    Raises:
        ImportError: optuna is missing.
    """

    def __init__(
        self,
        optimizer_class: Callable[..., Any],
        hyperparam_names: Specification,
        bounds: Mapping[str, tuple[float, float]],
        ressources: int,
        runner: type[PTRunner],
        *,
        log_scale: Sequence[str] = ("lr",),
        sampler: str = "tpe",
        **options: Any,
    ) -> None:
        super().__init__(optimizer_class, hyperparam_names, ressources, runner, **options)
        if self.pack > 1:
            raise ValueError(f"pack is {self.pack}; a Bayesian search tries settings one by one")
        for name, (low, high) in bounds.items():
            if not low < high or (name in log_scale and low <= 0):
                raise ValueError(f"bounds of {name!r}: ({low}, {high}); 0 < low < high expected")
        if sampler not in ("tpe", "gp", "random"):
            raise ValueError(f"sampler is {sampler!r}; accepted: tpe, gp, random")
        self.bounds, self.log_scale, self.sampler = dict(bounds), tuple(log_scale), sampler

    def propose(self, random_seed: int) -> list[dict[str, Any]]:
        """Refuse: each setting depends on the results before it.

        Raises:
            ValueError: always.
        """
        raise ValueError("GP: settings depend on earlier results; use tune(), or another search")

    def tune(
        self,
        testproblem: str,
        output_dir: str | Path = "./results",
        random_seed: int = 42,
        rerun_best_setting: bool = False,
        launch: LaunchOptions | None = None,
        **run_arguments: Any,
    ) -> Trial:
        """Search in this process, and return the best setting; arguments as in ``Tuner.tune``.

        Raises:
            ValueError: a launcher other than ``local``; every run diverged.
        """
        check_testproblem(testproblem)
        if launch is not None and launch.launcher != "local":
            raise ValueError(
                f"--launcher {launch.launcher}: a Bayesian search tries settings one by one, here"
            )
        study = self._study(random_seed)
        self.trials = []
        run_arguments = self._repeated(testproblem, output_dir, run_arguments)
        for _ in range(self.ressources):
            ask = study.ask()
            given = {
                name: ask.suggest_float(name, low, high, log=name in self.log_scale)
                for name, (low, high) in self.bounds.items()
            }
            chosen = complete(self.specification, given)
            where = (output_dir, random_seed, run_arguments)
            (trial,) = self._try(testproblem, [chosen], *where)
            cost = trial.cost()
            study.tell(ask, cost if math.isfinite(cost) else 1e30)
        return self._finish(testproblem, output_dir, random_seed, rerun_best_setting, run_arguments)

    def _study(self, random_seed: int) -> Any:
        try:
            import optuna
        except ImportError:
            raise ImportError("GP: optuna is not installed; pip install -e '.[tuner]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        samplers = optuna.samplers
        made = {
            "tpe": lambda: samplers.TPESampler(seed=random_seed, n_startup_trials=5),
            "gp": lambda: samplers.GPSampler(seed=random_seed, n_startup_trials=5),
            "random": lambda: samplers.RandomSampler(seed=random_seed),
        }
        return optuna.create_study(sampler=made[self.sampler]())

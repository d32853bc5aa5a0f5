"""Networks against recorded passes over images: outputs, losses, gradients, moving statistics.

Weights, inputs and masks are regenerated from the seeds in ``meta.json`` with NumPy's frozen legacy
generator; TensorFlow layouts throughout, converted at the edge by ``tf_weights``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import CLASSES, Golden, max_abs, max_rel
from deepobs.parity.text import check_text
from deepobs.parity.variables import check_gradients, generate_variable
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem
from deepobs.pytorch.testproblems._layers import Dropout, MaskSource
from deepobs.pytorch.testproblems.testproblem import PHASES
from deepobs.pytorch.tf_weights import load_tf_variables, tf_variables
from trainrig.parity import Record, Report


def check_forward(golden: Golden, stem: str, report: Report) -> None:
    """Compare every recorded pass of every problem."""
    records, arrays = golden.json(f"{stem}.json"), golden.arrays(f"{stem}.npz")
    for name in records:
        with report.attempt(f"{stem}/{name}"):
            _check_problem(golden, name, records[name], arrays, report)


def _check_problem(
    golden: Golden, name: str, record: Record, arrays: Record, report: Report
) -> None:
    kind = record.get("testproblem", name)
    if kind not in TESTPROBLEMS:
        record.plain()
        report.unchecked(f"forward/{name}", f"unknown test problem {kind!r}")
        return
    problem = TESTPROBLEMS[kind](batch_size=int(record["batch_size"]))
    if "weight_decay" in record:
        problem = TESTPROBLEMS[kind](int(record["batch_size"]), record["weight_decay"])
    problem.set_up_net("cpu")
    Passes(golden, name, record, arrays, problem, report).check()


class Passes:
    """All recorded passes of one problem."""

    def __init__(
        self,
        golden: Golden,
        name: str,
        record: Record,
        arrays: Record,
        problem: TestProblem,
        report: Report,
    ) -> None:
        self.golden, self.name, self.record = golden, name, record
        self.arrays, self.problem, self.report = arrays, problem, report
        self.case = f"forward/{name}"

    def setting(self, name: str) -> Any:
        """Return a setting of this problem, else of all of them.

        Raises:
            MissingEntryError: there is none.
        """
        common = self.golden.settings("forward")
        return common[name] if name in common and name not in self.record else self.record[name]

    def check(self) -> None:
        """Load the weights, then compare each phase."""
        try:
            self.load_weights()
        except ValueError as error:
            self.report.equal(self.case, "variables", False, str(error))
            return
        if "consecutive_batches" in self.record:
            check_text(self.golden, self.case, self.record, self.arrays, self.problem, self.report)
        phases = self.record.get("phases", {})
        if not phases and "consecutive_batches" not in self.record:
            self.report.unchecked(self.case, "no pass is recorded")
        if phases:
            batch = self.make_batch()
            for phase in phases:
                with self.report.attempt(f"{self.case}/{phase}"):
                    self.check_phase(phase, phases[phase], batch)

    def load_weights(self, silent: bool = False) -> None:
        """Regenerate and load all variables; check names and, unless silent, sums."""
        base = int(self.setting("weight_seed_base"))
        values, sums = {}, []
        for variable in self.record["variables"]:
            shape = tuple(variable["shape"])
            value = generate_variable(variable["name"], shape, base + variable["k"])
            values[variable["name"]] = value
            if not silent:
                with self.report.attempt(self.case):
                    total = float(np.abs(value.astype(np.float64)).sum())
                    sums.append((total, variable["abs_sum"]))
        load_tf_variables(self.problem.net, values)
        if sums:
            ours, theirs = zip(*sums, strict=True)
            # A recording may add up in float32: pairwise as in NumPy, in blocks of 128 with 8 sums
            # side by side, a term meets 16 + 3 + log2(n / 128) roundings.
            largest = max(value.size for value in values.values())
            bound = (19 + math.log2(max(largest, 128) / 128)) * 2.0**-24
            self.report.check(self.case, "weights regenerated", max_rel(ours, theirs), bound)

    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Regenerate images (B, C, H, W) and labels (B,)."""
        data = self.problem.__class__.__name__.partition("_")[0]
        r = np.random.RandomState(int(self.setting("input_seed")))
        n = int(self.record["batch_size"])
        if data in ("mnist", "fmnist"):
            x = r.uniform(0, 1, (n, 28, 28, 1))
        else:
            side = 224 if data == "imagenet" else 32
            x = r.standard_normal((n, side, side, 3))
        y = r.randint(0, CLASSES[data], n)
        with self.report.attempt(self.case):
            self.report.equal(self.case, "labels regenerated", list(y) == self.record["labels"])
        with self.report.attempt(self.case):
            # Each number may have been rounded to float32 before it was added up, or not.
            scale = max(float(np.abs(x).sum()), 1.0)
            deviation = abs(x.sum() - self.record["x_sum"]) / scale
            self.report.check(self.case, "input regenerated", deviation, 2.0**-24)
        images = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(y.astype(np.int64))

    def prescribe_masks(self, phase: str) -> bool:
        """Prescribe dropout masks; False where the directory does not say which.

        Masks are arrays ``<problem>__<phase>__mask<k>`` where recorded; otherwise mask k, counted
        in the order of application, keeps where ``RandomState(base + k).uniform(size=shape) >=
        rate``, shape in TensorFlow's layout.
        """
        common = self.golden.settings("forward").get("dropout_seed_base")
        dropouts = [m for m in self.problem.net.modules() if isinstance(m, Dropout) and m.p > 0]
        if phase != "train" or not dropouts:
            return True
        prefix = f"{self.name}__{phase}__mask"
        recorded = any(key.startswith(prefix) for key in self.arrays)
        base = self.record.get("dropout_seed_base", common)
        if base is None and not recorded:
            return False
        count = iter(range(10**6))

        def mask_source(rate: float) -> MaskSource:
            def mask(shape: torch.Size) -> torch.Tensor:
                k = next(count)
                if recorded:
                    keep = self.arrays[f"{prefix}{k}"]
                else:
                    tf_shape = [shape[0], *shape[2:], shape[1]] if len(shape) == 4 else list(shape)
                    assert base is not None  # refused above
                    keep = np.random.RandomState(int(base) + k).uniform(size=tf_shape) >= rate
                tensor = torch.from_numpy(np.asarray(keep, np.float32))
                return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor

            return mask

        for dropout in dropouts:
            dropout.mask_source = mask_source(dropout.p)
        return True

    def check_phase(self, phase: str, expected: Record, batch: Any) -> None:
        """Compare outputs, losses, regulariser, gradients and moving statistics of one pass."""
        case = f"{self.case}/{phase}"
        reason = ""
        if phase not in PHASES:
            reason = f"unknown phase {phase!r}; known are {', '.join(PHASES)}"
        elif not self.prescribe_masks(phase):
            reason = "active dropout, and the directory prescribes no masks"
        if reason:
            expected.plain()
            for key in self.arrays_of(phase):
                self.arrays[key]
            self.report.unchecked(case, reason)
            return
        outputs: list[Any] = []
        hook = self.problem.net.register_forward_hook(lambda _, __, output: outputs.append(output))
        with torch.no_grad():
            losses, accuracy = self.losses(phase, batch, accuracy=True)
        hook.remove()
        self.check_outputs(case, phase, outputs[0])
        self.check_scalars(case, phase, expected, losses)
        if accuracy is not None:
            with self.report.attempt(case):
                self.report.check(
                    case, "accuracy", abs(float(accuracy) - expected["accuracy"]), 1e-6
                )
        if "train_phase_deterministic" in expected:
            active = [m for m in self.problem.net.modules() if isinstance(m, Dropout) and m.p > 0]
            same = (phase == "train" and not active) == expected["train_phase_deterministic"]
            self.report.equal(case, "no active dropout", same)
        moved = {v.name: v.value() for v in tf_variables(self.problem.net) if not v.trainable}
        bound = self.bound("logits_abs", phase)
        firsts = expected.get("moving_stats_after_one_update_first3", {})
        for name in firsts:
            ours = moved.get(name, np.empty(0)).ravel()[:3]
            self.report.check(case, name, max_abs(ours, firsts[name]), bound)
        if phase == "train":
            self.load_weights(silent=True)  # undo the update of the moving statistics
        if "grad_l2_norms" in expected:
            self.differentiate(phase, batch)
            record = expected["grad_l2_norms"], expected.get("grad_first3", [])
            variables = [v for v in tf_variables(self.problem.net) if v.trainable]
            check_gradients(
                self.report, case, variables, record, self.bound("grad_norm_rel", phase)
            )
        else:
            self.report.unchecked(case, "gradients are not recorded")

    def arrays_of(self, phase: str) -> list[str]:
        """Return the names of the arrays recorded for a phase."""
        return [key for key in self.arrays if key.startswith(f"{self.name}__{phase}__")]

    def losses(self, phase: str, batch: Any, *, accuracy: bool) -> Any:
        """Return per-example losses and accuracy of one pass, in the network's precision."""
        problem = self.problem
        problem.begin(phase, None)
        dtype = next(problem.net.parameters()).dtype
        if hasattr(problem, "noise"):
            seed = int(self.setting("vae_noise_seed"))
            noise = np.random.RandomState(seed).standard_normal((len(batch[0]), 8))
            problem.noise = torch.from_numpy(noise.astype(np.float32)).to(dtype)
        return problem.forward_losses(
            (batch[0].to(dtype), batch[1]), accuracy=accuracy and problem.has_accuracy
        )

    def differentiate(self, phase: str, batch: Any) -> None:
        """Compute gradients in float64, from and back to the prescribed weights.

        In float32 they are a matter of luck for deep networks: one activation that rounds to the
        other side of a ReLU's kink moves WRN-16-4's norms by 8e-4, in float64 they agree to 2e-6.
        """
        net = self.problem.net.double()
        self.prescribe_masks(phase)
        losses, _ = self.losses(phase, batch, accuracy=False)
        net.zero_grad()
        (losses.mean() + self.problem.get_regularization_loss()).backward()
        net.float()
        self.load_weights(silent=True)

    def bound(self, name: str, phase: str) -> float | None:
        """Return a bound of this pass, or None where none is recorded."""
        return self.golden.case_bound(name, f"{self.name}/{phase}")

    def check_outputs(self, case: str, phase: str, output: Any) -> None:
        """Compare logits, auxiliary logits, or the VAE's image, mean and log deviation."""
        if isinstance(output, torch.Tensor):
            named = {"logits": output}
        elif len(output) == 2:
            named = {"logits": output[0], "aux": output[1]}
        else:
            named = dict(zip(("img", "mean", "std"), output, strict=True))
        for what, ours in named.items():
            key = f"{self.name}__{phase}__{what}"
            if key not in self.arrays:
                self.report.unchecked(case, f"{what} is not recorded")
                continue
            bound = self.golden.bound("exceptions", f"{self.name}/{phase}", f"{what}_abs")
            if bound is None:
                bound = self.bound("logits_abs", phase)
            deviation = max_abs(ours.detach().numpy(), self.arrays[key])
            self.report.check(case, what, deviation, bound)

    def check_scalars(self, case: str, phase: str, expected: Record, losses: torch.Tensor) -> None:
        """Compare per-example losses, regulariser and objective."""
        report = self.report
        ours = losses.detach().numpy()
        with torch.no_grad():
            l2 = float(self.problem.get_regularization_loss())
            objective = float(losses.mean() + l2)
        bound = self.loss_bound(phase, expected)
        with report.attempt(case):
            theirs = expected["losses"]
            report.equal(case, "losses have shape (B,)", losses.shape == (len(theirs),))
            report.check(case, "per-example losses", max_rel(ours, theirs), bound)
        with report.attempt(case):
            deviation = max_rel(l2, expected["regularizer"])
            report.check(case, "regulariser", deviation, self.bound("regularizer_rel", phase))
        with report.attempt(case):
            total = expected["mean_loss_plus_regularizer"]
            report.check(case, "objective", max_rel(objective, total), bound)

    def loss_bound(self, phase: str, expected: Record) -> float | None:
        """Return the bound of the losses: more where a case's logits are allowed more.

        A loss moves by at most twice its logits, 1.4 of both heads with the auxiliary one.
        """
        bound, logits = self.bound("per_example_loss_rel", phase), self.bound("logits_abs", phase)
        common = self.golden.bound("logits_abs")
        if bound is None or logits is None or common is None or "losses" not in expected:
            return bound
        aux = self.golden.bound("exceptions", f"{self.name}/{phase}", "aux_abs")
        loosened = logits - common + (0.0 if aux is None else 0.4 * max(aux - common, 0.0))
        return bound + 2 * max(loosened, 0.0) / float(np.abs(expected["losses"]).min())

"""Networks against recorded passes over images: outputs, losses, gradients, moving statistics.

Weights, inputs and masks are regenerated from the seeds in ``meta.json`` with NumPy's frozen legacy
generator; TensorFlow layouts throughout, converted at the edge by ``tf_weights``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.parity.text import check_text
from deepobs.parity.variables import generate_variable, gradient_deviations
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem
from deepobs.pytorch.testproblems._layers import Dropout, MaskSource
from deepobs.pytorch.tf_weights import load_tf_variables, tf_variables
from trainrig.parity import Report

CLASSES = {"mnist": 10, "fmnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10, "imagenet": 1001}


def check_forward(golden: Golden, stem: str, report: Report) -> None:
    """Compare every recorded pass of every problem."""
    records = golden.json(stem)
    arrays = golden.arrays(stem)
    if records is None:
        report.unchecked(stem, f"{stem}.json is missing beside the arrays")
        return
    for name, record in records.items():
        kind = record.get("testproblem", name)
        if kind not in TESTPROBLEMS:
            report.unchecked(f"{stem}/{name}", f"unknown test problem {kind!r}")
            continue
        problem = TESTPROBLEMS[kind](batch_size=int(record["batch_size"]))
        if "weight_decay" in record:
            problem = TESTPROBLEMS[kind](int(record["batch_size"]), record["weight_decay"])
        problem.set_up_net("cpu")
        Passes(golden, name, record, arrays, problem, report).check()
    unused = {key.partition("__")[0] for key in arrays} - records.keys()
    for name in sorted(unused):
        report.unchecked(f"{stem}/{name}", "arrays without a record")


class Passes:
    """All recorded passes of one problem."""

    def __init__(
        self,
        golden: Golden,
        name: str,
        record: dict[str, Any],
        arrays: dict[str, np.ndarray],
        problem: TestProblem,
        report: Report,
    ) -> None:
        self.golden, self.name, self.record = golden, name, record
        self.arrays, self.problem, self.report = arrays, problem, report
        self.settings = {**golden.meta.get("forward", {}), **record}
        self.case = f"forward/{name}"

    def check(self) -> None:
        """Load the weights, then compare each phase."""
        try:
            self.load_weights()
        except (KeyError, ValueError) as error:
            self.report.equal(self.case, "variables", False, str(error))
            return
        if "consecutive_batches" in self.record:
            check_text(self.golden, self.case, self.record, self.arrays, self.problem, self.report)
        elif self.record["phases"]:
            batch = self.make_batch()
            for phase, expected in self.record["phases"].items():
                self.check_phase(phase, expected, batch)

    def load_weights(self, silent: bool = False) -> None:
        """Regenerate and load all variables; check names and, unless silent, sums."""
        base = int(self.settings["weight_seed_base"])
        values, sums = {}, []
        for variable in self.record["variables"]:
            shape = tuple(variable["shape"])
            value = generate_variable(variable["name"], shape, base + variable["k"])
            values[variable["name"]] = value
            if "abs_sum" in variable:
                total = float(np.abs(value.astype(np.float64)).sum())
                sums.append((total, variable["abs_sum"]))
        load_tf_variables(self.problem.net, values)
        if sums and not silent:
            ours, theirs = zip(*sums, strict=True)
            self.report.check(self.case, "weights regenerated", max_rel(ours, theirs), 1e-5)

    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Regenerate images (B, C, H, W) and labels (B,)."""
        data = self.problem.__class__.__name__.partition("_")[0]
        r = np.random.RandomState(int(self.settings["input_seed"]))
        n = int(self.record["batch_size"])
        if data in ("mnist", "fmnist"):
            x = r.uniform(0, 1, (n, 28, 28, 1))
        else:
            side = 224 if data == "imagenet" else 32
            x = r.standard_normal((n, side, side, 3))
        y = r.randint(0, CLASSES[data], n)
        if "labels" in self.record:
            self.report.equal(self.case, "labels regenerated", list(y) == self.record["labels"])
        if "x_sum" in self.record:
            scale = max(float(np.abs(x).sum()), 1.0)
            self.report.check(
                self.case, "input regenerated", abs(x.sum() - self.record["x_sum"]) / scale, 1e-6
            )
        images = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(y.astype(np.int64))

    def prescribe_masks(self, phase: str) -> bool:
        """Prescribe dropout masks; False where the directory does not say which.

        Masks are arrays ``<problem>__<phase>__mask<k>`` where recorded; otherwise mask k, counted
        in the order of application, keeps where ``RandomState(base + k).uniform(size=shape) >=
        rate``, shape in TensorFlow's layout.
        """
        dropouts = [m for m in self.problem.net.modules() if isinstance(m, Dropout) and m.p > 0]
        if phase != "train" or not dropouts:
            return True
        prefix, base = f"{self.name}__{phase}__mask", self.settings.get("dropout_seed_base")
        recorded = any(key.startswith(prefix) for key in self.arrays)
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

    def check_phase(self, phase: str, expected: dict[str, Any], batch: Any) -> None:
        """Compare outputs, losses, regulariser, gradients and moving statistics of one pass."""
        case = f"{self.case}/{phase}"
        if not self.prescribe_masks(phase):
            self.report.unchecked(case, "active dropout, and the directory prescribes no masks")
            return
        outputs: list[Any] = []
        hook = self.problem.net.register_forward_hook(lambda _, __, output: outputs.append(output))
        with torch.no_grad():
            losses, accuracy = self.losses(phase, batch, accuracy=True)
        hook.remove()
        self.check_outputs(case, phase, outputs[0])
        self.check_scalars(case, phase, expected, losses)
        if accuracy is not None and "accuracy" in expected:
            self.report.check(case, "accuracy", abs(float(accuracy) - expected["accuracy"]), 1e-6)
        moved = {v.name: v.value() for v in tf_variables(self.problem.net) if not v.trainable}
        bound = self.bound("logits_abs", phase)
        for name, first in expected.get("moving_stats_after_one_update_first3", {}).items():
            ours = moved.get(name, np.empty(0))[: len(first)]
            self.report.check(case, name, max_abs(ours, first), bound)
        if phase == "train":
            self.load_weights(silent=True)  # undo the update of the moving statistics
        if "grad_l2_norms" in expected:
            self.differentiate(phase, batch)
            self.check_gradients(case, phase, expected)

    def losses(self, phase: str, batch: Any, *, accuracy: bool) -> Any:
        """Return per-example losses and accuracy of one pass, in the network's precision."""
        problem = self.problem
        problem.begin(phase, None)
        dtype = next(problem.net.parameters()).dtype
        if hasattr(problem, "noise"):
            seed = int(self.settings["vae_noise_seed"])
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

    def bound(self, name: str, phase: str) -> float:
        """Return a bound of this pass."""
        return self.golden.bound(name, f"{self.name}/{phase}")

    def check_outputs(self, case: str, phase: str, output: Any) -> None:
        """Compare logits, auxiliary logits, or the VAE's image, mean and log deviation."""
        if isinstance(output, torch.Tensor):
            named = {"logits": output}
        elif len(output) == 2:
            named = {"logits": output[0], "aux": output[1]}
        else:
            named = dict(zip(("img", "mean", "std"), output, strict=True))
        prefix = f"{self.name}__{phase}__"
        for key in [k for k in self.arrays if k.startswith(prefix) and "__mask" not in k]:
            what = key.removeprefix(prefix)
            if what not in named:
                self.report.unchecked(case, f"array {what!r} is no output of this network")
                continue
            special = self.golden.bounds.get("exceptions", {}).get(f"{self.name}/{phase}", {})
            bound = special.get(f"{what}_abs", self.bound("logits_abs", phase))
            deviation = max_abs(named[what].detach().numpy(), self.arrays[key])
            self.report.check(case, what, deviation, bound)

    def check_scalars(
        self,
        case: str,
        phase: str,
        expected: dict[str, Any],
        losses: torch.Tensor,
    ) -> None:
        """Compare per-example losses, regulariser and objective."""
        report, problem = self.report, self.problem
        bound = self.bound("per_example_loss_rel", phase)
        ours = losses.detach().numpy()
        # A loss moves by at most twice its logits (1.4 of both heads with the auxiliary one), so
        # where a case's logits are allowed more, so are the losses that come from them.
        loosened = self.bound("logits_abs", phase) - self.golden.bound("logits_abs")
        special = self.golden.bounds.get("exceptions", {}).get(f"{self.name}/{phase}", {})
        loosened += 0.4 * max(special.get("aux_abs", 0.0) - self.golden.bound("logits_abs"), 0.0)
        bound += 2 * max(loosened, 0.0) / float(np.abs(expected["losses"]).min())
        report.equal(case, "losses have shape (B,)", losses.shape == (len(expected["losses"]),))
        report.check(case, "per-example losses", max_rel(ours, expected["losses"]), bound)
        with torch.no_grad():
            l2 = float(problem.get_regularization_loss())
            objective = float(losses.mean() + l2)
        deviation = max_rel(l2, expected["regularizer"])
        report.check(case, "regulariser", deviation, self.bound("regularizer_rel", phase))
        total = expected["mean_loss_plus_regularizer"]
        report.check(case, "objective", max_rel(objective, total), bound)

    def check_gradients(self, case: str, phase: str, expected: dict[str, Any]) -> None:
        """Compare each variable's gradient norm and first three entries."""
        bound = self.bound("grad_norm_rel", phase)
        variables = [v for v in tf_variables(self.problem.net) if v.trainable]
        norms, firsts = expected["grad_l2_norms"], expected.get("grad_first3", [])
        if len(norms) != len(variables):
            self.report.equal(case, "gradients", False, f"{len(norms)} for {len(variables)}")
            return
        worst_norm, worst_first = gradient_deviations(variables, norms, firsts)
        self.report.check(case, "gradient norms", worst_norm, bound)
        if firsts:  # no bound is recorded: single entries carry rounding that norms average out
            self.report.check(case, "gradient entries", worst_first, 10 * bound)

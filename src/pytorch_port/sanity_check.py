"""One seeded batch against the recorded reference: is this installation computing the right thing?

``python -m pytorch_port.sanity_check`` loads a recorded one-layer transformer with interim
predictions, runs one batch forward and backward and prints how far logits, loss and gradients are
from those the JAX reference recorded. Exit status 0 if all are within their bounds.
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np

from trainrig.cli import Parser, entry
from trainrig.parity import Report

RECORDED = "sanity_check.npz"
LOGITS_ABS, LOSS_REL, GRADIENT_REL, GRADIENT_ABS = 2e-5, 1e-5, 1e-4, 1e-7
#: The gradient of a key bias is zero in theory and rounding noise in practice.
NOISE = "causal_self_attention/linear_1/b"


def check() -> Report:
    """Run the recorded batch and compare; bounds as recorded with the reference arrays."""
    import torch  # here, so that --help is instant

    from pytorch_port.model.jax_weights import as_haiku, load_jax_weights, parameter_map
    from pytorch_port.model.sequence_models import build_model
    from pytorch_port.parity.golden import never_nan
    from pytorch_port.train.losses import icl_loss

    with resources.files("pytorch_port").joinpath(RECORDED).open("rb") as file:
        arrays = dict(np.load(file))
    settings = json.loads(str(arrays["settings"]))
    model = build_model(
        settings["seq_model"], embedding=settings["embedding"], model=settings["model"]
    )
    prefix = "params/"
    load_jax_weights(
        model, {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    )
    examples = torch.from_numpy(arrays["examples"]).long()
    labels = torch.from_numpy(arrays["labels"]).long()
    logits = model(examples, labels)
    loss = icl_loss(logits, labels, settings["w_interim"])
    loss.backward()
    report = Report()
    case = "one batch"
    difference = np.abs(logits.detach().numpy() - arrays["logits_train"]).max()
    report.check(case, "logits, absolute", difference, LOGITS_ABS)
    recorded_loss = float(arrays["loss_train"])
    report.check(case, "loss, relative", abs(loss.item() / recorded_loss - 1.0), LOSS_REL)
    gradients = as_haiku(parameter_map(model), {n: p.grad for n, p in model.named_parameters()})
    worst = max(
        never_nan(
            abs(gradient.double().norm().item() - arrays[f"grad_norm/{name}"][0])
            / (arrays[f"grad_norm/{name}"][0] + GRADIENT_ABS / GRADIENT_REL)
        )
        for name, gradient in gradients.items()
        if not name.endswith(NOISE)
    )
    report.check(case, "gradient norms, relative", worst, GRADIENT_REL)
    return report


@entry
def main(argv: list[str] | None = None) -> int:
    """Print the comparison; 0 if it holds."""
    Parser(prog="python -m pytorch_port.sanity_check", description=__doc__).parse_args(argv)
    report = check()
    print(report.table())  # noqa: T201 - the command's output
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())

"""Short names for optimizers of other packages, imported only when one is used.

pytorch_optimizer (Apache-2.0) and schedulefree (Apache-2.0) come with ``trainrig[optimizers]``.
Their other classes are reachable by dotted name, e.g. ``pytorch_optimizer.AdaBelief``.
"""

from __future__ import annotations

from trainrig.optim.torch_builtin import OPTIMIZERS

EXTRAS = {
    "adan": "pytorch_optimizer.Adan",
    "ademamix": "pytorch_optimizer.AdEMAMix",
    "adopt": "pytorch_optimizer.ADOPT",
    "lamb": "pytorch_optimizer.Lamb",
    "lars": "pytorch_optimizer.LARS",
    "lion": "pytorch_optimizer.Lion",
    "prodigy": "pytorch_optimizer.Prodigy",
    "schedulefree_adamw": "schedulefree.AdamWScheduleFree",
    "schedulefree_sgd": "schedulefree.SGDScheduleFree",
    "shampoo": "pytorch_optimizer.Shampoo",
    "signsgd": "pytorch_optimizer.SignSGD",
    "soap": "pytorch_optimizer.SOAP",
}
for _name, _dotted in EXTRAS.items():
    OPTIMIZERS.register(_name)(_dotted)

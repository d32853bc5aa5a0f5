"""Do optimizers find different solutions? Deterministic training and the measures that compare."""

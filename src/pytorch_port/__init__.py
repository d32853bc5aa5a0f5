"""Emergent in-context learning: DeepMind's transformer on Omniglot and symbolic sequences."""

"""Sequence models, input embedding, losses, and weights carried over from JAX."""

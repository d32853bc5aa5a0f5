"""Sequence models, input embedding, and weights carried over from JAX."""

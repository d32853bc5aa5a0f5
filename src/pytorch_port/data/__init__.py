"""Sequences: class partition, labels, generators, samplers and batches."""

"""Reads result files and the published baselines, compares, draws; imports no torch."""

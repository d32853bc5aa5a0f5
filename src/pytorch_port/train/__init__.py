"""One ICL run: steps, rows, evaluations, checkpoints."""

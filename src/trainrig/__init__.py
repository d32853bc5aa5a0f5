"""The shared core: configuration, data, models, optimizers, checkpoints, runs and sweeps."""

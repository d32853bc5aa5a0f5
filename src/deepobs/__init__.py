"""DeepOBS in PyTorch: 26 test problems, runners, tuner, analyzer and the published baselines."""

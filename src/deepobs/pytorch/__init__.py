"""The PyTorch side: configuration, data sets, test problems, runners and tuners."""

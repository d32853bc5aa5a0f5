"""Beside one run: command lines, evaluation, ensembles, uncertainty, conversion, archives."""

"""Grids of ICL runs, alone or packed, and their tables."""

"""Configuration of an ICL run: the typed tree, its files, and how a run is executed."""

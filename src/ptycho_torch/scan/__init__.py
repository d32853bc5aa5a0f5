"""A scan on disk and in groups: the canonical NPZ, and which frames form a group."""

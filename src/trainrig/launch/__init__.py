"""Where the runs of a sweep are carried out: here, by SLURM, or by Ray."""

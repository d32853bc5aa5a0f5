"""Figure 3, the published experiments, archives and report texts."""

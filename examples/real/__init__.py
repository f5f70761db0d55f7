"""A search over real checkpoints, real data and lm-eval's stock tasks, small enough for two CPU cores."""

"""Programs that measure Huarizo and compare it with others: run one with `python -m benchmarks.<name>`."""

"""The oracle: what mergekit 0.1.5 makes of small tensors and models, kept as golden files for the tests.

`python -m benchmarks.oracle` builds mergekit's own virtual environment, runs `generate` in it and writes
`tests/conformance/golden`. mergekit is used as a program; nothing of it is part of this repository.
"""

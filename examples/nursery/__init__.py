"""The nursery: a small base model and three specialists, grown on two CPU cores, with three benchmarks of their own.

See ``README.md`` in this folder for what is grown and the measured figures; start with
``python -m examples.nursery <folder>``.
"""

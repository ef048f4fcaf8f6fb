"""Benchmarks, run by `just bench [name …]` and never as timed tests: speeds are ratios within one run."""

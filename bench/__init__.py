"""Benchmarks: our own baselines beside the real processes, as ratios from one run."""

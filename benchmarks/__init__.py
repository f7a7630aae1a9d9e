"""Benchmarks: python dev.py bench. Every result file names its machine, versions, date and seeds."""

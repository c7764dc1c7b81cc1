"""Benchmarks, not tests: `make bench` runs them all, `python -m benchmarks.NAME` one of them (docs/BENCHMARKS.md)."""

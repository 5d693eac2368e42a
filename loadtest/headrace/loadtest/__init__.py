"""Load: locust scenarios and benchmarks with raw results."""

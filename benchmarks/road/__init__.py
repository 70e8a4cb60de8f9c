"""`python -m benchmarks.road [--quick]`: every figure of the road of an event."""

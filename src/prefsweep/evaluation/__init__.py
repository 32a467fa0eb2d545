"""Metrics: pure functions over samples, scores and logits. Each is defined in docs/metrics.md."""

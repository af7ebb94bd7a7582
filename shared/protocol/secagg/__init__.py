"""Secure aggregation: the sum of updates that nobody can read one by one (docs/secure-aggregation.md)."""

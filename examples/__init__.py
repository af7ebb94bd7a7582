"""Data and configurations that a user copies."""

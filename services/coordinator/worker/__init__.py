"""The co-tuning worker: a process of its own, an HTTP client of the work API."""

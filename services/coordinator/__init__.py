"""The coordinator: HTTP, store and round engine; torch only in the worker."""

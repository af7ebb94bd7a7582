"""The programs that run: coordinator, worker and client agent."""

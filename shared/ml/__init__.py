"""Models, losses and loops: torch, no HTTP, no settings."""

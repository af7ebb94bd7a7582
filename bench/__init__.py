"""Evidence and simulation, above both services."""

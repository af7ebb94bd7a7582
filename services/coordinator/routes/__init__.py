"""HTTP: parse, one call, reply. Nothing here decides anything."""

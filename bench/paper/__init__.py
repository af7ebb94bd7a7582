"""The paper's tables, with the controls that they lack: ``python -m bench.paper`` (docs/evidence.md)."""

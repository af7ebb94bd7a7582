"""Examples from the files that an organisation has: no torch, no HTTP."""

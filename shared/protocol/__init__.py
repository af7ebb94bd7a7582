"""The rules of the round: no torch, no HTTP, no clock."""

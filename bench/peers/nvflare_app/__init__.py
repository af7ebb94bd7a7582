"""The FLARE job of this comparison; it runs in FLARE's environment."""

"""The Flower app of this comparison; it runs in Flower's environment."""

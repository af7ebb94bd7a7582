"""The command line of whoever runs a federation: ``fedcollm``."""

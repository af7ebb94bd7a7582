"""The command line of an organisation that takes part: ``fedcollm-agent``."""

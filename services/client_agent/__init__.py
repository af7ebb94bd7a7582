"""The agent that runs next to an organisation's data."""

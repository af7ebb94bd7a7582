"""What the command lines of both services share."""

"""Which hosts are this machine itself: what is said to them crosses no network."""

from ipaddress import ip_address


def is_here(host: str) -> bool:
    """Return whether a host is this machine by its very name; nobody is asked for the addresses of others."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

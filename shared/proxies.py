"""Which proxy a request goes by: that of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), or none.

This machine itself is always asked directly, as Go and browsers do: no proxy reaches another machine's loopback.
"""

from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from shared.errors import ConfigurationError
from shared.loopback import is_here

LARGEST_PORT = 65_535
WITHOUT_PORT = {"http": 80, "https": 443}


def proxy_for(url: str) -> SplitResult | None:
    """Return the address of the proxy that is between this machine and ``url``, if one is.

    Raises:
        ConfigurationError: it is not one that is spoken to over HTTP.
    """
    there, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(there.scheme) or proxies.get("all")
    if not proxy or is_here(there.hostname or "") or proxy_bypass(there.netloc):
        return None
    address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if address.scheme not in WITHOUT_PORT or not address.hostname or not _has_port(address):
        raise ConfigurationError(
            f"the proxy that the environment names for {there.scheme} is none that is spoken to over HTTP: correct "
            f"{there.scheme.upper()}_PROXY (or ALL_PROXY), or name {there.hostname} in NO_PROXY"
        )
    return address


def place(address: SplitResult) -> str:
    """Return host and port; a proxy's name and password are nobody's to read."""
    return f"{address.hostname}:{port(address)}"


def port(address: SplitResult) -> int:
    """Return the port that an address means."""
    return address.port or WITHOUT_PORT[address.scheme]


def _has_port(address: SplitResult) -> bool:
    try:
        return address.port is None or address.port > 0
    except ValueError:  # not a number, or above LARGEST_PORT
        return False

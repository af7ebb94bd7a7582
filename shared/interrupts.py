"""Ctrl-C before a program is there: while its modules are imported, which takes seconds where PyTorch is among them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While the block imports, let Ctrl-C end the process as it ends one that knows nothing of it.

    Python's own answer would be a traceback out of the middle of somebody's module, or none at all where a library
    takes it for a failed import.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # and not ignored, as for a job in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)

"""A file that holds the secret half of an Ed25519 key, and nothing else: one line, for its owner alone."""

import os
from contextlib import suppress
from pathlib import Path

from shared.access import refusal
from shared.errors import ConfigurationError, OutputExists, OutputUnwritable
from shared.protocol.identity import SECRET_BYTES, IdentityKey, from_text, to_text


def read_key(file: Path) -> IdentityKey:
    """Return the key that a file holds.

    Raises:
        ConfigurationError: it cannot be read, or holds none.
    """
    try:
        secret = from_text(file.read_text(encoding="ascii").strip())
    except OSError as error:
        raise ConfigurationError(f"the key file: {refusal(file, error)}") from None
    except ValueError:  # not `from` it: it may quote the key
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigurationError(
            f"{file} holds no key of ours, which is one line of 43 letters, digits, dashes and underscores: name the "
            "right file, or put its copy back"
        )
    return IdentityKey(secret)


def key_of(file: Path) -> IdentityKey:
    """Return the key that a file holds, or a new one where there is no file; errors are those of ``read_key``."""
    return read_key(file) if file.exists() else IdentityKey.generate()


def keep_key(file: Path, key: IdentityKey) -> None:
    """Write a key into a file, or leave it there: what a key has signed is lost with it, so none is written over.

    Raises:
        OutputExists: the file holds another key.
        OutputUnwritable: the disk says no.
    """
    if not file.exists():
        _write(file, key)
    if read_key(file).public != key.public:
        raise OutputExists(f"{file} holds another key: choose another place, or move it away")


def _write(file: Path, key: IdentityKey) -> None:
    """Let a key file appear whole: half of one, which a kill would leave, would be taken for somebody's damaged key."""
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "w", encoding="ascii") as written:
            written.write(f"{to_text(key.secret)}\n")
            written.flush()
            os.fsync(written.fileno())
        with suppress(FileExistsError):  # somebody else was faster
            file.hardlink_to(part)  # and not a rename, which would put it in the place of another
        part.unlink()
        names = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(names)  # a key that was told of and is gone after a power cut is a member less
        finally:
            os.close(names)
    except OSError as error:
        raise OutputUnwritable(f"{file} cannot be written ({error.strerror}): choose another folder") from None

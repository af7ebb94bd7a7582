"""Whether what settings name can be read by the user that a process runs as; in a container that is another one."""

import os
import re
import stat
from pathlib import Path

from shared.errors import ConfigurationError
from shared.meant import meant

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def require_readable(path: Path) -> None:
    """Check that this process may read the file or list the folder ``path``.

    Raises:
        ConfigurationError: it may not, or there is none.
    """
    try:
        if path.is_dir():
            os.scandir(path).close()
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # a pipe is not waited for
    except OSError as error:
        raise ConfigurationError(refusal(path, error)) from None


def require_writable(folder: Path) -> None:
    """Make the folder, unless it is there, and check that this process may write to it.

    Raises:
        ConfigurationError: it may not, or no folder can be there.
    """
    there = next(part for part in (folder, *folder.parents) if _is_there(part))
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise ConfigurationError(
            f"{folder} is on a disk that may only be read: mount it so that it can be written to, or name another "
            "folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        allowed = _may(folder, os.W_OK | os.X_OK)
    except PermissionError:
        allowed = False
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be a folder ({error.strerror}): name another, or move away what is there"
        ) from None
    if not allowed:
        stops = next(part for part in (folder, *folder.parents) if _is_there(part))
        state, user = stops.stat(), os.geteuid()
        raise ConfigurationError(
            f"{folder} cannot be written to by this process, which runs as user {user}: {stops} belongs to "
            f"user {state.st_uid} and has mode {stat.S_IMODE(state.st_mode):04o}. Give it to that user (chown {user} "
            f"{stops}), or name another folder"
        )


def require_model(name: str) -> None:
    """Check that a base model is a readable folder of Hugging Face's format, or a hub id.

    Its files are not looked into, and no hub is asked: that takes time, and is for whoever loads it.

    Raises:
        ConfigurationError: it is neither.
    """
    folder = Path(name)
    if not is_folder(folder):
        if is_path(name) or not _HUB_ID.fullmatch(name):
            raise ConfigurationError(no_model(name))
        return
    require_readable(folder)
    weights, pickled = (next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin"))
    for needed, found in (("config.json", folder / "config.json"), ("*.safetensors", weights)):
        if found is None or not found.exists():
            instead = f", and {pickled.name} is not read (docs/models.md has why)" if found is None and pickled else ""
            raise ConfigurationError(
                f"{folder} holds no {needed}{instead}: it is not the folder of a Hugging Face model with its weights "
                "as safetensors; correct the path, or fetch the model again"
            )
        require_readable(found)


def is_path(name: str, folder: Path = Path()) -> bool:
    """Say whether a model's name can only be meant as a path: it begins at a folder that is in ``folder``."""
    return is_folder(folder / name.partition("/")[0])


def no_model(name: str) -> str:
    """Say that a model's name leads to no folder, and what may have been meant."""
    hint = beside(Path(name), otherwise="correct the path; a hub id is name or owner/name, and owner no folder here")
    return f"there is no folder {name}: {hint}"


def is_folder(path: Path) -> bool:
    """Return whether there is a folder by this name.

    Raises:
        ConfigurationError: nobody can tell: a folder above it is closed, or no file can have such a name.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise ConfigurationError(refusal(path, error)) from None


def refusal(path: Path, error: OSError) -> str:
    """Say why ``path`` cannot be read, and what to do; in a container it is mostly the user that is another one."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return _not_there(path.absolute())
        case PermissionError():
            return _not_allowed(path.absolute())
        case IsADirectoryError():
            return f"{path} is a folder, and a file is wanted: name the one that is meant"
        case _:
            return f"{path} cannot be read ({error.strerror or error}): correct the path, or name another file"


def _not_there(path: Path) -> str:
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is not there: correct the link, or mount the folder"
    folder = next(parent for parent in path.parents if _is_there(parent))
    if not folder.is_dir():
        return f"there is no {path}: {folder} is a file and no folder; correct the path"
    if folder != path.parent:
        return f"there is no {path}, nor its folder: {folder} is there; correct the path, or mount the folder"
    return f"there is no {path.name!r} in {folder}: {beside(path, otherwise='correct the path')}"


def beside(path: Path, *, otherwise: str) -> str:
    """Ask whether a file or folder beside ``path``, which is not there, was meant; files of a kind all end alike."""
    try:
        names = [other.name for other in path.absolute().parent.iterdir() if other.name != path.name]
    except OSError:  # there is no such folder, or it can be passed through and not be listed
        names = []
    return meant(path.name, names, otherwise=otherwise, part=lambda name: Path(name).stem)


def _not_allowed(path: Path) -> str:
    """Say who may not read what, and how to change that; of a path, the first part that stands in the way."""
    stops = next((part for part in (*reversed(path.parents), path) if not _accessible(part, path)), path)
    state, user, group = stops.stat(), os.geteuid(), os.getegid()
    need = "rx" if stat.S_ISDIR(state.st_mode) else "r"
    return (
        f"{path} cannot be read by this process, which runs as user {user} and group {group}: {stops} belongs to user "
        f"{state.st_uid} and group {state.st_gid} and has mode {stat.S_IMODE(state.st_mode):04o}. Give it to that user "
        f"(chown {user} {stops}), or let others read it (chmod o+{need} {stops}), or run the process or its container "
        f"as user {state.st_uid}"
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # in a folder that cannot be looked into
        return False


def _accessible(part: Path, path: Path) -> bool:
    return _may(part, (os.R_OK if part == path else 0) | (os.X_OK if part.is_dir() else 0))


def _may(path: Path, need: int) -> bool:
    return os.access(path, need, effective_ids=os.access in os.supports_effective_ids)

"""Getting weights: the local cache first, then the network with a short time-out."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

from mdpd_plugins.files import fresh_file

TIMEOUT_S = 10.0  # our choice: long enough for a slow first answer, short enough to notice there is no network


def offline() -> bool:
    """Whether MDPD_OFFLINE, or the hub's own HF_HUB_OFFLINE, says that nothing is to be fetched."""
    return any(os.environ.get(n, "").lower() in {"1", "true", "yes", "on"} for n in ("MDPD_OFFLINE", "HF_HUB_OFFLINE"))


def reachable(url: str, timeout: float = TIMEOUT_S) -> bool:
    """Whether anything answers at `url`. Any HTTP status counts; proxies of the environment are honoured."""
    if offline():
        return False
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        # A proxy that refuses (403, 407) is not the host answering.
        return error.code not in (403, 407)
    except (OSError, ValueError):
        return False


def download(url: str, folder: Path, timeout: float = TIMEOUT_S) -> Path:
    """`url` as a file in `folder`, fetched only if it is not there yet; it appears whole or not at all.

    Raises:
        OSError: it cannot be fetched.
    """
    target = folder / url.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    if not reachable(url, timeout):
        raise OSError(f"{url} cannot be reached")
    folder.mkdir(parents=True, exist_ok=True)
    with fresh_file(target) as temporary, temporary.open("wb") as file:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
            # urllib takes a connection that broke off for the end of the file.
            if (length := answer.headers.get("Content-Length")) is not None and file.tell() != int(length):
                raise OSError(f"{url} broke off after {file.tell()} of {length} bytes")
    return target


def cached_file(repo: str, *names: str) -> Path | None:
    """The first of several files of a hub repository that the local cache holds; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_reachable(repo: str) -> bool:
    """Whether the hub answers for a repository."""
    from huggingface_hub import constants

    return reachable(f"{constants.ENDPOINT}/{repo}/resolve/main/config.json")


def packaged_path(distribution: str, ending: str) -> Path | None:
    """A file of an installed distribution, found without importing it; None if it is not installed.

    Args:
        distribution: its name on the package index.
        ending: how the file's path ends, such as "model/config.json".
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix().endswith(ending):
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    return None


__all__ = ["TIMEOUT_S", "cached_file", "download", "hub_reachable", "offline", "packaged_path", "reachable"]

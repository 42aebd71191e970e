"""Where an installed package keeps its data files.

Packages are found through their distribution's metadata and never imported: some print, some import much, and none is
needed to read its data.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mdpd_plugins.registry import DataError, MissingDependencyError


def package_path(package: str, relative: str) -> Path:
    """The file or folder `relative` of an installed package.

    Raises:
        MissingDependencyError: the package is not installed (says how to get it).
        DataError: it is, but without that file.
    """
    try:
        path = Path(str(distribution(package).locate_file(relative)))
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"this packaged data set is inside the package {package!r}, which is not installed; "
            f"install it with: pip install {package}"
        ) from error
    if not path.exists():
        raise DataError(
            f"{package} is installed without {relative}; reinstall: pip install --force-reinstall {package}"
        )
    return path

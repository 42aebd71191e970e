"""The packaged data set `solar-cells`: photographs of solar cells under current, functional or defective."""

from __future__ import annotations

import functools

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.labels import check_label_kind
from mdpd_plugins.data.packaged.package_files import package_path
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError

_ABOUT = (
    "2,624 electroluminescence photographs (300x300, grey) of cells of 44 solar modules, each with the probability of "
    "a defect that experts gave it; from the pip package elpv-dataset. Licence CC BY-NC-SA 4.0: NOT FOR COMMERCIAL "
    "USE. Buerhop-Lutz et al., EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019."
)


@functools.lru_cache(maxsize=2)
def open_solar_cells(*, label_kind: str = "single") -> dict[str, Source]:
    """The photographs. Which module a cell was cut from is not recorded, so splits may share modules.

    Args:
        label_kind: "single" (defective from a probability of 0.5 on; 1,803 functional, 821 defective) or "float"
            (the probability itself: 0, 1/3, 2/3 or 1).

    Raises:
        MissingDependencyError: elpv-dataset is not installed.
        DataError: its table is not what it should be.
        ConfigError: another label_kind.
    """
    kind = check_label_kind(label_kind)
    if kind not in ("single", "float"):
        raise ConfigError("solar-cells has label_kind 'single' (functional, defective) or 'float' (the probability)")
    table = package_path("elpv-dataset", "elpv_dataset/data/labels.csv")
    try:
        # Image, probability of a defect, kind of cell; in columns of blanks.
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines() if line.strip()]
        images = [table.parent / path for path, _, _ in rows]
        chances = [float(chance) for _, chance, _ in rows]
    except ValueError as error:
        raise DataError(f"{table} does not read ({error}); pip install --force-reinstall elpv-dataset") from error
    # No augmentation by default: a crop may cut the defect off.
    if kind == "float":
        return {"train": Source(images, chances, (), "image", _ABOUT, label_kind="float", read=read_image)}
    labels = [int(chance >= 0.5) for chance in chances]
    return {"train": Source(images, labels, ("functional", "defective"), "image", _ABOUT, read=read_image)}

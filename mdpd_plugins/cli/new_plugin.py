"""Write a small installable package with one backbone, whose conformance test passes, to start a plugin from."""

from __future__ import annotations

import argparse
import keyword
import re
from pathlib import Path

from mdpd_plugins.registry import ConfigError

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "Backbones of {zoo} for mdpd-plugins"
requires-python = ">=3.10"
dependencies = ["mdpd-plugins", "torch"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points."mdpd.plugins"]
{zoo} = "{package}"

[tool.setuptools]
packages = ["{package}"]
"""

PLUGIN = '''\
"""The plugin. Importing it loads no framework: `build` is a string that is resolved when needed."""

from mdpd_plugins.registry import BackboneSpec, hookimpl


@hookimpl
def register_backbones(register):
    register(
        BackboneSpec(
            "{zoo}/tiny",
            build="{package}.model:build",
            family="vit",
            summary="a small vision transformer to be replaced by yours",
            small="{package}.model:small",
        )
    )
'''

MODEL = '''\
"""The backbone: replace it by yours, or by a call of the library that has it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mdpd_plugins.adapters import RANDOM, Built


class Block(nn.Module):
    """Pre-norm self-attention and MLP, (B, T, width) in and out."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class Tiny(nn.Module):
    """Images (B, 3, image_size, image_size) to logits (B, num_classes)."""

    def __init__(self, num_classes: int, image_size: int, width: int, depth: int):
        super().__init__()
        self.image_size = image_size  # the general adapter prepares images at this size
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (image_size // 8) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def build(*, pretrained="auto", num_classes, image_size=64, width=192, depth=6):
    """Called with `pretrained` ("auto", a path, or None), `num_classes`, and the options of a config."""
    model = Tiny(num_classes, image_size, width, depth)
    return Built(model, origin=f"{{RANDOM}}: no checkpoint is published")  # shown in log, summary and model card


def small(name):
    """Options with which `mdpd verify` checks the backbone in a second; one entry for each part of it."""
    return {{"": {{"image_size": 32, "width": 32, "depth": 3}}}}
'''

TEST = """\
import pytest
from mdpd_plugins.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_tiny(check):
    check("{zoo}/tiny", image_size=32, width=32, depth=3)
"""

README = """\
# {name}

A plugin of mdpd-plugins.

```
pip install -e '.[test]'
pytest
mdpd list-backbones --zoo {zoo}
mdpd verify --zoo {zoo}
```
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the distribution, such as acme-mdpd")
    parser.add_argument("--zoo", metavar="Z", help="what the names of its backbones begin with (default: NAME)")
    parser.add_argument("--out", metavar="DIR", help="folder to write; must not exist, or be empty (default: ./NAME)")


def run(args: argparse.Namespace) -> int:
    folder = write_plugin_package(args.name, Path(args.out or args.name), zoo=args.zoo or args.name)
    print(f"wrote {folder}; next: cd {folder} && pip install -e '.[test]' && pytest")
    return 0


def write_plugin_package(name: str, folder: Path, *, zoo: str) -> Path:
    """Write the package.

    Raises:
        ConfigError: a name that no distribution or zoo can have, or a folder with something in it.
    """
    for what, value in (("name", name), ("zoo", zoo)):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([._-][A-Za-z0-9]+)*", value):
            raise ConfigError(f"{what} {value!r}: use letters and digits, with single '-', '_' or '.' between them")
    package = re.sub(r"[.-]", "_", name).lower()
    if keyword.iskeyword(package) or package == "mdpd_plugins":
        raise ConfigError(f"{name!r} cannot be the name of a Python package; choose another, such as {name}-mdpd")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} exists and is not an empty folder; name another with --out")
    values = {"name": name, "zoo": zoo, "package": package}
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": PLUGIN,
        f"{package}/model.py": MODEL,
        "tests/test_conformance.py": TEST,
    }
    for path, template in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(template.format(**values), encoding="utf-8")
    return folder

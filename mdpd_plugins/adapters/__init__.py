"""Adapters: one face for every backbone. The general mechanism; each zoo's own adapter lies in its folder."""

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import RANDOM, Built
from mdpd_plugins.adapters.factory import adapt, build_backbone, describe
from mdpd_plugins.adapters.inspection.capture import Capture
from mdpd_plugins.adapters.inspection.layout import Layout
from mdpd_plugins.adapters.transform import EachPicture, ImageTransform, TextTransform

__all__ = [
    "RANDOM",
    "Adapter",
    "Built",
    "Capture",
    "EachPicture",
    "ImageTransform",
    "Layout",
    "TextTransform",
    "adapt",
    "build_backbone",
    "describe",
]

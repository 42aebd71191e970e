"""Adapters: one face for every backbone. The only package that touches a framework's internals."""

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.capture import Capture
from mdpd_plugins.adapters.factory import adapt, build_backbone, describe
from mdpd_plugins.adapters.layout import Layout
from mdpd_plugins.adapters.origin import RANDOM, is_random, origin_of, record_origin

__all__ = [
    "RANDOM",
    "Adapter",
    "Capture",
    "Layout",
    "adapt",
    "build_backbone",
    "describe",
    "is_random",
    "origin_of",
    "record_origin",
]

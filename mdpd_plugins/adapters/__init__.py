"""Adapters: one face for every backbone. The only package that touches a framework's internals."""

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.capture import Capture
from mdpd_plugins.adapters.factory import adapt, build_backbone, describe
from mdpd_plugins.adapters.layout import Layout
from mdpd_plugins.adapters.origin import RANDOM, is_random, origin_of, record_origin
from mdpd_plugins.adapters.special_cases import SPECIAL_CASES

__all__ = [
    "RANDOM",
    "SPECIAL_CASES",
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

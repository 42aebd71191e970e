"""The method, written once: it knows the adapter protocol and never a zoo."""

from mdpd_plugins.engine.distiller import Distiller, NonFiniteLossError
from mdpd_plugins.engine.fading import FadingReport, fade
from mdpd_plugins.engine.memory import TensorMeter
from mdpd_plugins.engine.settings import METHODS, Settings

__all__ = ["METHODS", "Distiller", "FadingReport", "NonFiniteLossError", "Settings", "TensorMeter", "fade"]

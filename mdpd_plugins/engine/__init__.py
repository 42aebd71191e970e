"""The method, written once: it knows the adapter protocol and never a zoo."""

from mdpd_plugins.engine.coaching import Taught
from mdpd_plugins.engine.distiller import Distiller, NonFiniteLossError
from mdpd_plugins.engine.fading import FadingReport, fade
from mdpd_plugins.engine.gradients import Gradients, PlainGradients
from mdpd_plugins.engine.optimised import Rates
from mdpd_plugins.engine.settings import METHODS, Settings
from mdpd_plugins.engine.tensor_meter import TensorMeter

__all__ = [
    "METHODS",
    "Distiller",
    "FadingReport",
    "Gradients",
    "NonFiniteLossError",
    "PlainGradients",
    "Rates",
    "Settings",
    "Taught",
    "TensorMeter",
    "fade",
]

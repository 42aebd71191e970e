"""One page about a training run, made from its work directory: figures, attention, drift, costs, examples."""

from mdpd_plugins.reporting.page import write_report

__all__ = ["write_report"]

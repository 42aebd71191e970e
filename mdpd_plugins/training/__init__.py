"""Training runs on mmengine: configuration, runner, summary and export."""

from mdpd_plugins.training import mmengine_alone  # noqa: F401  # isort: skip  # first
from mdpd_plugins.training.config import DEFAULTS, load_config, read_overrides
from mdpd_plugins.training.experiment import Experiment, build_experiment
from mdpd_plugins.training.finishing import export_work_dir
from mdpd_plugins.training.network import export_network
from mdpd_plugins.training.run_record import config_of_run, read_run
from mdpd_plugins.training.train import dry_run, train

__all__ = [
    "DEFAULTS",
    "Experiment",
    "build_experiment",
    "config_of_run",
    "dry_run",
    "export_network",
    "export_work_dir",
    "load_config",
    "read_overrides",
    "read_run",
    "train",
]

"""Training runs on mmengine: configuration, runner, summary and export."""

from mdpd_plugins.training.config import DEFAULTS, load_config
from mdpd_plugins.training.experiment import Experiment, build_experiment
from mdpd_plugins.training.main import main
from mdpd_plugins.training.run import dry_run, export_work_dir, train

__all__ = ["DEFAULTS", "Experiment", "build_experiment", "dry_run", "export_work_dir", "load_config", "main", "train"]

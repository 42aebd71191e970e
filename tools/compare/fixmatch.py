"""FixMatch (Sohn et al., arXiv:2001.07685), a control of docs/results.md: no side network, and nobody who learns first.

In every step the backbone answers pictures without labels as they are; where it is sure, it learns from its own answer
on the same pictures, augmented. Ours has as many of them as labelled ones in a step (the paper: seven times), and no
weak augmentation: a digit that is flipped is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mdpd_plugins.data import Collate, EpochBatchSampler, LabelledDataset, load_unlabelled
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training.config import load_config, read_overrides

NAME = "fixmatch"
METHOD = f"distill.method={NAME}"
# What it is to the engine: low-rank updates that are taught, by what `FixMatchHook` puts into a batch. Labels are
# taught, too, so that both halves of a batch count as the paper has it: the mean of each, added up.
OVERRIDES = (
    *("distill.method=norm", "distill.backbone_update=norm+low_rank", "distill.confidence=0.95"),
    *("distill.labels_weight=0", "distill.logits_weight=2", "distill.kl_temperature=1"),
)
SURE = 100.0  # logit of a pseudo-label: a softmax makes exactly one of it


def load_fixmatch(config: str, overrides: Sequence[str]) -> Config:
    """The configuration of a run with it, whose `data.unlabelled` the hook takes.

    Args:
        overrides: `--cfg-options`, one of which says distill.method=fixmatch.

    Raises:
        ConfigError: as `load_config`; or there are no inputs without labels.
    """
    given = [own for pair in overrides for own in (OVERRIDES if pair == METHOD else (pair,))]
    loaded = load_config(config, read_overrides(given))
    if not loaded.data.unlabelled:
        raise ConfigError(f"{NAME} learns from pictures without labels, too: set data.unlabelled.type=rest, or another")
    loaded.custom_hooks = [{"type": FixMatchHook.__name__, "unlabelled": loaded.data.unlabelled.to_dict()}]
    loaded.data.unlabelled = {}
    return loaded


@HOOKS.register_module()
class FixMatchHook(Hook):
    """Puts as many examples without labels into each batch as it has labelled ones, with what the backbone says now.

    Args:
        unlabelled: as `data.unlabelled`.

    Raises:
        ConfigError: as training begins, on data that cannot be augmented.
    """

    def __init__(self, unlabelled: dict[str, Any]):
        self.unlabelled = unlabelled

    def before_train(self, runner) -> None:
        """Open the inputs without labels."""
        config, labelled = runner.cfg, runner.train_dataloader.dataset
        if labelled.transform is None or labelled.source.label_kind != "single":
            raise ConfigError(
                f"{NAME} compares a picture with the same picture, augmented, under one label: set data.augment, on "
                f"pictures with one label each"
            )
        seed, adapter = config.train.seed, runner.model.adapter
        source = load_unlabelled(self.unlabelled, config.data.source, labelled.source)
        self.plain = LabelledDataset(source, train=True)
        self.changed = LabelledDataset(source, labelled.transform, seed=seed + 1, train=True)
        sampler = DefaultSampler(self.changed, shuffle=True, seed=seed + 1)
        self.batches = iter(EpochBatchSampler(sampler, config.data.batch_size, seed=seed + 1))
        self.collate, self.stretched = Collate(adapter.transform()), Collate(adapter.transform(stretch=True))

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Add to the batch, and say what is taught."""
        device, classes = runner.model.adapter.device, runner.model.task.num_outputs
        numbers, known = next(self.batches), data_batch["labels"]
        plain = self.collate([(self.plain[i][0], known[0]) for i in numbers])["inputs"]
        changed = self.stretched([(self.changed[i][0], known[0]) for i in numbers])["inputs"]
        answers = runner.model({k: v.to(device) for k, v in plain.items()})["backbone"].float().cpu()
        sure = answers.softmax(1).amax(1) >= runner.model.settings.confidence
        pseudo = answers.argmax(1)
        # What it is not sure of stays as it is, and is left out by the engine.
        taught = torch.where(sure[:, None], F.one_hot(pseudo, classes) * SURE, answers)
        data_batch["inputs"] = {k: torch.cat([v, changed[k]]) for k, v in data_batch["inputs"].items()}
        data_batch["labels"] = torch.cat([known, torch.zeros_like(pseudo)])
        data_batch["teacher"] = torch.cat([F.one_hot(known, classes) * SURE, taught])
        data_batch["labelled"] = torch.arange(len(known) + len(pseudo)) < len(known)


__all__ = ["METHOD", "NAME", "FixMatchHook", "load_fixmatch"]

"""Every switch of the method, with its default and where that comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from mdpd_plugins.checked import check_value, setting
from mdpd_plugins.registry.errors import ConfigError, closest

NORM_GRADIENTS = ("exact", "last_k", "local", "head")
TEACHERS = ("side", "mean", "backbone")
UPDATES = ("norm", "head", "all", "none", "lora", "norm+low_rank")
COACHES = (
    *("auto", "ladder", "reader", "auto+backbone", "ladder+backbone", "reader+backbone"),
    *("backbone", "backbone+backbone"),  # controls, without a side network
)

# Baselines and ablations are the same engine with switches turned: no second path to compare against.
METHODS: dict[str, dict[str, Any]] = {
    "mdpd": {},
    "mdpd_no_feature": {"feature_distillation": False},
    "mdpd_no_logits": {"logits_distillation": False},
    "mdpd_no_hierarchy": {"hierarchy": False},
    # A narrower ladder, kept whole: what an epoch on cached features costs is the ladder alone.
    "mdpd_head": {"norm_gradient": "head", "reduction": 16, "recompute": False},
    "mdpd_low_memory": {"sub_batch": 8},
    "mdpd_last_k": {"norm_gradient": "last_k"},
    "mdpd_local": {"norm_gradient": "local"},
    "ladder": {
        "backbone_update": "none",
        "feature_distillation": False,
        "logits_distillation": False,
    },
    # At every step: what has this much to learn does not get there in a quarter of the steps.
    "mdpd_low_rank": {"backbone_update": "norm+low_rank", "backbone_every": 1},
    # Coach, then fade: the side network learns first, alone, and then teaches the backbone, which runs alone.
    "mdpd_coach": {"side": False, "coach": "auto", "backbone_every": 1},
    "mdpd_coach_low_rank": {
        "side": False,
        "coach": "auto",
        "backbone_every": 1,
        "backbone_update": "norm+low_rank",
    },
    # Without a side network: a backbone step at every step, PyTorch's plain graph unless recompute is asked for.
    "norm": {"side": False, "backbone_every": 1, "recompute": False},
    "norm_checkpointed": {"side": False, "backbone_every": 1},
    "linear": {"side": False, "backbone_every": 1, "backbone_update": "head"},
    "lora": {"side": False, "backbone_every": 1, "backbone_update": "lora", "recompute": False},
    "lora_checkpointed": {"side": False, "backbone_every": 1, "backbone_update": "lora"},
    "full": {"side": False, "backbone_every": 1, "backbone_update": "all", "recompute": False},
}


@dataclass(frozen=True)
class Settings:
    """The method's settings. docs/method.md has the formulas they appear in."""

    method: str = setting("mdpd", "a row of METHODS, applied first; anything given besides wins over it")
    side: bool = setting(True, "train a side network beside the backbone")
    reduction: int = setting(8, "D_S = D / reduction (LST: 8)", at_least=1)
    side_head_dim: int = setting(32, "attention head width of the side blocks", at_least=1)
    side_dropout: float = setting(
        0.0, "share of what each branch of a side block adds that is dropped in training", at_least=0, at_most=0.9
    )
    bottleneck: int = setting(32, "d of the low-rank alignment", at_least=1)
    mask_ratio: float = setting(0.5, "lambda, share of tokens masked in generation (MGD: 0.5)", at_least=0, at_most=1)
    shallow: Any = setting((0, 1), 'layers to imitate: indices, a share of the depth, or "auto" for both')
    deep: Any = setting((-1,), 'layers to generate: indices, a share of the depth, or "auto" for both')
    auto_batches: int = setting(4, "batches that the automatic split is measured on", at_least=1)
    feature_distillation: bool = setting(True, "the backbone teaches the side network")
    logits_distillation: bool = setting(True, "the side network teaches the backbone")
    hierarchy: bool = setting(True, "False imitates at every chosen layer and generates at none")
    imitation_weight: float = setting(1.0, "w_f of imitation", at_least=0)
    generation_weight: float = setting(0.5, "w_f of generation", at_least=0)
    teacher: str = setting(
        "mean",
        "whose logits the backbone learns from: side; mean, the average of both paths' (our choice: it is better than "
        "either, and never far from the student); or backbone, its own, a control: the same loss without what the side "
        "network knows",
        choices=TEACHERS,
    )
    logits_weight: float = setting(1.0, "w_l", at_least=0)
    nkd_gamma: float = setting(1.0, "of the NKD loss: weight of the non-target term", at_least=0)
    nkd_tau: float = setting(1.0, "of the NKD loss: temperature", above=0)
    kl_temperature: float = setting(2.0, "of the KL loss", above=0)
    backbone_every: int = setting(4, "side steps for one backbone step", at_least=1)
    tail_blocks: int | None = setting(
        0,
        "what of the backbone learns at every step all the same: final norm, pooler and head, and this many last "
        "blocks; None: the whole backbone waits",
        at_least=0,
    )
    coach: str | None = setting(
        None,
        "who learns first, alone and from labels, on features of the frozen backbone, and teaches the backbone "
        "afterwards: ladder, the side network; reader, a logistic regression on the pooled states of all layers; auto, "
        "the better of both on validation. With +backbone: the mean of it and of the backbone, which learns from "
        "labels as well and is put back. backbone and backbone+backbone are controls: self-training, no side network",
        choices=COACHES,
    )
    labels_weight: float = setting(4.0, "where a coach teaches: weight of the labels' own loss", at_least=0)
    labelled_repeats: int = setting(
        1,
        "where a coach teaches: how often an epoch goes through the labelled examples while it goes through those "
        "without a label once; another view each time where they are augmented",
        at_least=1,
    )
    confidence: float = setting(
        0.0,
        "where a coach teaches: how sure it must be of an example without a label, as the probability of its answer "
        "(several labels: of its least sure one), for the example to count",
        at_least=0,
        at_most=1,
    )
    warmup: float = setting(0.1, "share of all steps before logits distillation begins", at_least=0, at_most=1)
    norm_gradient: str = setting("exact", "how gradients reach norm parameters", choices=NORM_GRADIENTS)
    last_k: int = setting(2, "blocks whose norms are trained when norm_gradient is last_k", at_least=1)
    backbone_update: str = setting(
        "norm",
        "what training may change: norm (and head), head, all, none, lora (low-rank updates of query and value, and "
        "head), or norm+low_rank (beyond the paper: norms, low-rank updates of the blocks' linear layers and "
        "convolutions, and head)",
        choices=UPDATES,
    )
    rank: int = setting(8, "r of low-rank updates", at_least=1)
    recompute: bool = setting(
        True,
        "forwards with gradients keep block inputs only and recompute one block at a time; the gradients are the same, "
        "bit for bit",
    )
    sub_batch: int | None = setting(
        None,
        "samples that pass through both networks together; their gradients add up to the whole batch's. None: the "
        "whole batch at once. Memory falls with it, and gradients differ by the order of sums only",
        at_least=1,
    )
    cache_features: int = setting(
        0,
        "MiB of main memory for hidden states of a frozen backbone, kept from epoch to epoch; 0 keeps none. Only where "
        "the output layer alone is trained, and on data without augmentation but for cache_views",
        at_least=0,
    )
    cache_views: int = setting(
        1,
        "where hidden states are kept, by a coach too: how many views of each example, itself and augmented ones "
        "(data.augment); epoch n learns from view n modulo this. 1: the example alone",
        at_least=1,
    )
    cache_folder: str | None = setting(
        None,
        "a folder for a file of hidden states instead: it may be larger than main memory, and later runs with the same "
        "weights and inputs read it",
    )
    cache_dtype: str = setting(
        "float32",
        "type in which that file holds them; bfloat16: half of the bytes",
        choices=("float32", "bfloat16"),
    )

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Settings:
        """Settings from a config's `distill` section.

        Raises:
            ConfigError: an unknown key, method or value.
        """
        known, hints = {f.name: f for f in fields(cls)}, get_type_hints(cls)
        for key, value in given.items():
            if key not in known:
                raise ConfigError(f"distill.{key} is not a setting: {closest(str(key), known)}")
            check_value(f"distill.{key}", value, hints[key], known[key])
        method = given.get("method", "mdpd")
        if method not in METHODS:
            raise ConfigError(f"distill.method={method!r} is not known: {closest(method, METHODS)}")
        settings = replace(cls(), **{**METHODS[method], **given})
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ConfigError on values that do not go together."""
        if self.keeps_features and not self.frozen_blocks and self.coach is None:
            key = "cache_features" if self.cache_features else "cache_folder"
            raise ConfigError(
                f"distill.{key}={getattr(self, key)!r} keeps hidden states from epoch to epoch, but "
                f"backbone_update={self.backbone_update!r} with norm_gradient={self.norm_gradient!r} changes them: "
                f"use norm_gradient='head', or {key}={0 if key == 'cache_features' else None}"
            )
        for key in ("shallow", "deep"):
            _check_layers_setting(key, getattr(self, key))
        if ("auto" in (self.shallow, self.deep)) and self.shallow != self.deep:
            raise ConfigError('distill.shallow and distill.deep are measured together: set both to "auto"')
        if not self.side and self.backbone_update == "none":
            raise ConfigError("distill.side=False with backbone_update='none' trains nothing")
        if self.coach is not None and (self.side or self.backbone_update == "none"):
            raise ConfigError(
                f"distill.coach={self.coach!r} learns first and teaches the backbone afterwards, which runs alone: set "
                f"distill.side=False and a backbone_update other than 'none', as method='mdpd_coach' does"
            )

    def first_stage(self, coach: str) -> Settings:
        """Settings of the stage in which the coach learns, from labels alone.

        Args:
            coach: one of `coaches`.
        """
        alone = replace(self, coach=None)
        if coach == "backbone":
            return replace(alone, cache_views=1)  # nothing of it is kept
        # Also a reader's: it needs the features that the ladder reads. They are kept, so nothing has to be saved by
        # working it out twice.
        return replace(alone, side=True, backbone_update="none", logits_distillation=False, recompute=False)

    @property
    def coaches(self) -> tuple[str, ...]:
        """Who learns first, one after the other; what they say is averaged. Empty: nobody does."""
        return tuple(self.coach.split("+")) if self.coach else ()

    @property
    def keeps_features(self) -> bool:
        """Whether hidden states of the frozen backbone are kept; those of a coach's stage always are."""
        return self.coach is None and (self.cache_features > 0 or self.cache_folder is not None)

    @property
    def takes_views(self) -> bool:
        """Whether something is kept that there may be several views of: features, of this stage or of a coach's."""
        return self.keeps_features or any(coach != "backbone" for coach in self.coaches)

    @property
    def automatic(self) -> bool:
        """Whether the split of shallow and deep layers is measured from attention maps."""
        return self.shallow == "auto"

    @property
    def low_rank(self) -> bool:
        """Whether the backbone gets low-rank updates."""
        return self.backbone_update in ("lora", "norm+low_rank")

    @property
    def frozen_blocks(self) -> bool:
        """Whether nothing of the backbone but its output layer is trained."""
        return self.backbone_update in ("head", "none") or self.norm_gradient == "head"

    @property
    def distils_logits(self) -> bool:
        """Whether the side network teaches the backbone."""
        return self.side and self.logits_distillation and self.backbone_update != "none"

    @property
    def distils_features(self) -> bool:
        """Whether the backbone teaches the side network."""
        return self.side and self.feature_distillation


def evaluation_size(config: Any) -> int:
    """Samples of an evaluation step of a configuration (`data.eval_batch_size`)."""
    together = Settings.from_dict(config.distill.to_dict()).sub_batch or config.data.batch_size
    return config.data.eval_batch_size or together


def _check_layers_setting(key: str, value: Any) -> None:
    if value == "auto" or (isinstance(value, float) and 0 <= value <= 1):
        return
    if isinstance(value, (list, tuple)) and all(type(layer) is int for layer in value):
        return
    raise ConfigError(
        f"distill.{key}={value!r}: a list of layers such as [0, 1], a share of the depth such as 0.25, "
        f'or "auto" is meant'
    )


__all__ = ["COACHES", "METHODS", "NORM_GRADIENTS", "UPDATES", "Settings", "evaluation_size"]

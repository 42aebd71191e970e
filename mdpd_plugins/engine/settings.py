"""Every switch of the method, with its default and where that comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mdpd_plugins.registry.errors import ConfigError, closest

NORM_GRADIENTS = ("exact", "last_k", "local", "head")
TEACHERS = ("side", "mean", "backbone")
UPDATES = ("norm", "head", "all", "none", "lora", "norm+low_rank")

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
    # At every step: what has this much to learn does not get there in a quarter of the steps (docs/results.md).
    "mdpd_low_rank": {"backbone_update": "norm+low_rank", "backbone_every": 1},
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
    """The method's settings. docs/method.md has the formulas they appear in.

    Attributes:
        method: a row of METHODS, applied first; anything given besides wins over it.
        side: train a side network beside the backbone.
        reduction: D_S = D / reduction (LST: 8).
        side_head_dim: attention head width of the side blocks.
        bottleneck: d of the low-rank alignment.
        mask_ratio: lambda, share of tokens masked in generation (MGD: 0.5).
        shallow, deep: layers to imitate and to generate: indices, a share of the depth, or both "auto".
        auto_batches: batches that the automatic split is measured on.
        feature_distillation, logits_distillation: the two directions, each can be switched off.
        hierarchy: False imitates at every chosen layer and generates at none.
        imitation_weight, generation_weight: w_f of each kind.
        teacher: whose logits the backbone learns from: "side"; "mean", the average of both paths' (our choice:
            it is better than either, and never far from the student); or "backbone", its own, a control: the same
            loss without what the side network knows.
        logits_weight: w_l. nkd_gamma, nkd_tau, kl_temperature: of the logits losses.
        backbone_every: side steps for one backbone step.
        tail_blocks: what of the backbone learns at every step all the same: what is trained behind the last block
            (final norm, pooler, output layer) and in this many last blocks. None: the whole backbone waits.
        warmup: share of all steps before logits distillation begins.
        norm_gradient: how gradients reach norm parameters: exact, last_k, local or head.
        last_k: blocks whose norms are trained when norm_gradient is last_k.
        backbone_update: norm (and head), head, all, none, lora (low-rank updates of query and value, and head), or
            norm+low_rank (beyond the paper: norms, low-rank updates of every linear layer of the blocks, and head).
        rank: r of low-rank updates.
        recompute: backbone forwards with gradients, and the side network's, keep block inputs only and recompute one
            block at a time. The gradients are the same, bit for bit.
        sub_batch: samples that pass through both networks together; their gradients add up to the whole batch's.
            None: the whole batch at once. Memory falls with it, and gradients differ by the order of sums only.
        cache_features: MiB of main memory for hidden states of a frozen backbone, kept from epoch to epoch; 0 keeps
            none. Only where the output layer alone is trained, and on data without augmentation.
    """

    method: str = "mdpd"
    side: bool = True
    reduction: int = 8
    side_head_dim: int = 32
    bottleneck: int = 32
    mask_ratio: float = 0.5
    shallow: Sequence[int] | float | str = (0, 1)
    deep: Sequence[int] | float | str = (-1,)
    auto_batches: int = 4
    feature_distillation: bool = True
    logits_distillation: bool = True
    hierarchy: bool = True
    imitation_weight: float = 1.0
    generation_weight: float = 0.5
    teacher: str = "mean"
    logits_weight: float = 1.0
    nkd_gamma: float = 1.0
    nkd_tau: float = 1.0
    kl_temperature: float = 2.0
    backbone_every: int = 4
    tail_blocks: int | None = 0
    warmup: float = 0.1
    norm_gradient: str = "exact"
    last_k: int = 2
    backbone_update: str = "norm"
    rank: int = 8
    recompute: bool = True
    sub_batch: int | None = None
    cache_features: int = 0

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Settings:
        """Settings from a config's `distill` section.

        Raises:
            ConfigError: an unknown key, method or value.
        """
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"distill.{key} is not a setting: {closest(key, known)}")
        method = given.get("method", "mdpd")
        if method not in METHODS:
            raise ConfigError(f"distill.method={method!r} is not known: {closest(str(method), METHODS)}")
        settings = replace(cls(), **{**METHODS[method], **given})
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ConfigError on a value that cannot work."""
        for key, allowed in (("norm_gradient", NORM_GRADIENTS), ("backbone_update", UPDATES), ("teacher", TEACHERS)):
            value = getattr(self, key)
            if value not in allowed:
                raise ConfigError(f"distill.{key}={value!r}: use one of {', '.join(allowed)}")
        for key in ("mask_ratio", "warmup"):
            if not _number(getattr(self, key)) or not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"distill.{key}={getattr(self, key)!r}: a share between 0 and 1 is meant")
        for key in ("reduction", "bottleneck", "backbone_every", "last_k", "auto_batches", "side_head_dim", "rank"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                raise ConfigError(f"distill.{key}={getattr(self, key)!r}: a whole number of at least 1 is meant")
        if type(self.cache_features) is not int or self.cache_features < 0:
            raise ConfigError(f"distill.cache_features={self.cache_features!r}: a whole number of MiB is meant")
        if self.cache_features and not self.frozen_blocks:
            raise ConfigError(
                f"distill.cache_features={self.cache_features} keeps hidden states from epoch to epoch, but "
                f"backbone_update={self.backbone_update!r} with norm_gradient={self.norm_gradient!r} changes them: "
                f"use norm_gradient='head', or cache_features=0"
            )
        if self.tail_blocks is not None and (type(self.tail_blocks) is not int or self.tail_blocks < 0):
            raise ConfigError(
                f"distill.tail_blocks={self.tail_blocks!r}: a whole number of blocks is meant, or None for no tail"
            )
        if self.sub_batch is not None and (type(self.sub_batch) is not int or self.sub_batch < 1):
            raise ConfigError(
                f"distill.sub_batch={self.sub_batch!r}: a whole number of samples is meant, or None for all"
            )
        for key in ("nkd_tau", "kl_temperature"):
            if not _number(getattr(self, key)) or not getattr(self, key) > 0:
                raise ConfigError(f"distill.{key}={getattr(self, key)!r}: a number above 0 is meant")
        for key in ("shallow", "deep"):
            _check_layers_setting(key, getattr(self, key))
        if ("auto" in (self.shallow, self.deep)) and self.shallow != self.deep:
            raise ConfigError('distill.shallow and distill.deep are measured together: set both to "auto"')
        if not self.side and self.backbone_update == "none":
            raise ConfigError("distill.side=False with backbone_update='none' trains nothing")

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


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_layers_setting(key: str, value: Any) -> None:
    if value == "auto" or (isinstance(value, float) and 0 <= value <= 1):
        return
    if isinstance(value, Sequence) and all(isinstance(layer, int) for layer in value):
        return
    raise ConfigError(
        f"distill.{key}={value!r}: a list of layers such as [0, 1], a share of the depth such as 0.25, "
        f'or "auto" is meant'
    )


__all__ = ["METHODS", "NORM_GRADIENTS", "UPDATES", "Settings"]

"""Which parameter learns at which rate: one table for every optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from torch import nn

from mdpd_plugins.checked import check_value, setting
from mdpd_plugins.registry.errors import ConfigError, closest

if TYPE_CHECKING:
    from mdpd_plugins.engine.distiller import Distiller


@dataclass(frozen=True)
class Rates:
    """Learning rates and weight decays of each kind of parameter. Defaults: tuned on validation."""

    scale: float = setting(1.0, "times every learning rate below: one number to tune", at_least=0)
    side_lr: float = setting(1e-3, "learning rate of the side network, alignments and generators", at_least=0)
    side_weight_decay: float = setting(0.05, "weight decay of the side network", at_least=0)
    norm_lr: float = setting(3e-3, "of norm parameters, which decay nothing: they are scales and shifts", at_least=0)
    head_lr: float = setting(3e-3, "of the output layer", at_least=0)
    low_rank_lr: float = setting(1e-3, "of low-rank updates", at_least=0)
    weight_lr: float = setting(1e-4, "of everything else in the backbone, in full fine-tuning", at_least=0)
    head_weight_decay: float = setting(0.05, "of the output layer, low-rank updates and everything else", at_least=0)

    @classmethod
    def of(cls, **given: float) -> Rates:
        """The defaults, but for what is given. Raises ConfigError for a rate that does not exist or is negative."""
        known, hints = {f.name: f for f in fields(cls)}, get_type_hints(cls)
        for key, value in given.items():
            if key not in known:
                raise ConfigError(f"there is no rate {key!r}: {closest(key, known)}")
            check_value(f"rate {key}", value, hints[key], known[key])
        return cls(**given)


def parameter_groups(distiller: Distiller, rates: Rates) -> list[dict[str, Any]]:
    """Groups of both paths: [{"name", "params", "lr", "weight_decay"}], those that have parameters, "side" first."""
    groups = [{"name": "side", "params": distiller.side_parameters(), "lr": rates.side_lr}]
    groups[0]["weight_decay"] = rates.side_weight_decay
    groups += _backbone_groups(distiller, rates)
    return [{**group, "lr": rates.scale * group["lr"]} for group in groups if group["params"]]  # type: ignore[operator]


def _backbone_groups(distiller: Distiller, rates: Rates) -> list[dict[str, Any]]:
    # In full fine-tuning norms learn as the weights around them do.
    adapter, full = distiller.adapter, distiller.settings.backbone_update == "all"
    decay = rates.head_weight_decay
    kinds: list[tuple[str, Mapping[str, nn.Parameter], float, float]] = [
        ("norm", adapter.norm_parameters(), rates.weight_lr if full else rates.norm_lr, 0.0),
        ("low_rank", distiller.low_rank, rates.low_rank_lr, decay),
        ("head", adapter.head_parameters() if full else distiller.trainable, rates.head_lr, decay),
        ("other", distiller.trainable, rates.weight_lr, decay),
    ]
    left = {id(p): p for p in distiller.trainable.values()}
    return [
        {
            "name": name,
            "params": [distiller.masters.of(left.pop(id(p))) for p in chosen.values() if id(p) in left],
            "lr": rate,
            "weight_decay": weight_decay,
        }
        for name, chosen, rate, weight_decay in kinds
    ]


__all__ = ["Rates", "parameter_groups"]

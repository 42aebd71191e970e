"""What a training has learned: all of a distiller's state but the frozen weights, which lie in their own checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mdpd_plugins.adapters.storage.checkpoint import check_keys
from mdpd_plugins.adapters.storage.fingerprint import fingerprint as sha256_of
from mdpd_plugins.engine.distiller import Distiller
from mdpd_plugins.engine.low_rank import plain_tensors
from mdpd_plugins.registry.errors import CheckpointError

FINGERPRINT = "frozen"
BACKBONE = "backbone."


def learned(distiller: Distiller) -> dict[str, torch.Tensor]:
    """What `load_learned` puts back into a distiller that was built alike.

    Of the backbone it holds, under `backbone.`, what trains, as float32 masters where there are any, and the output
    layer; and under "frozen" a SHA-256 of everything else, (32,) uint8. Of a backbone that is a random initialisation
    it is the whole state dict: those weights are in no other file.
    """
    state = distiller.state_dict()
    if distiller.adapter.random:
        return state
    for key in [k for k in state if k.startswith((BACKBONE, "masters."))]:
        del state[key]
    state.update({k: p.detach() for k, p in held(distiller).items()})
    state[FINGERPRINT] = fingerprint(distiller)
    return state


def fingerprint(distiller: Distiller) -> torch.Tensor:
    """SHA-256 of the backbone's frozen weights and buffers: names, shapes, types and bytes, (32,) uint8.

    Worked out once: they are frozen. Before they are shared out, if they will be.
    """
    if (known := distiller.__dict__.get(FINGERPRINT)) is None:
        own = {id(p) for p in [*distiller.trainable.values(), *distiller.trained.head.values()]}
        frozen = {k: t for k, t in plain_tensors(distiller.backbone).items() if id(t) not in own}
        digest = list(bytes.fromhex(sha256_of(frozen)))
        known = distiller.__dict__[FINGERPRINT] = torch.tensor(digest, dtype=torch.uint8)
    return known


def check_learned(distiller: Distiller, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise CheckpointError unless `load_learned` can put a state into a distiller.

    Args:
        source: what to call the state's file in messages.
    """
    if FINGERPRINT in state:
        parts = held(distiller)
        own = {k: v for k, v in distiller.state_dict().items() if not k.startswith((BACKBONE, "masters."))}
        own = {**own, **parts, FINGERPRINT: state[FINGERPRINT]}
    else:  # a whole one
        own = distiller.state_dict()
    check_keys(
        source,
        f"this configuration's {distiller.adapter.name}",
        [k for k in own if k not in state],
        [k for k in state if k not in own],
        [k for k in own if k in state and own[k].shape != state[k].shape],
    )
    if FINGERPRINT in state and not torch.equal(state[FINGERPRINT], fingerprint(distiller)):
        raise CheckpointError(
            f"{source} was learned beside other frozen weights than {distiller.adapter.name} now has "
            f"({distiller.adapter.origin}): the pretrained checkpoint changed since training began, or is held in "
            f"another type. Put back what was trained on"
        )


@torch.no_grad()
def load_learned(distiller: Distiller, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Put back what `learned` returned, or a whole state dict.

    Raises:
        CheckpointError: it belongs to another configuration, or to other frozen weights; nothing is changed.
    """
    check_learned(distiller, state, source)
    if FINGERPRINT not in state:
        distiller.load_state_dict(dict(state))
        distiller.masters.publish()
        return
    parts = held(distiller)
    distiller.load_state_dict({k: v for k, v in state.items() if k not in parts and k != FINGERPRINT}, strict=False)
    for key, parameter in parts.items():
        parameter.copy_(state[key])
    distiller.masters.publish()


def held(distiller: Distiller) -> dict[str, torch.nn.Parameter]:
    """Key in a state -> what of the backbone it holds: what trains, and the output layer, which may be new."""
    parts = {**distiller.trained.head, **distiller.trainable}
    return {f"{BACKBONE}{name}": distiller.masters.of(p) for name, p in parts.items()}


__all__ = ["FINGERPRINT", "check_learned", "fingerprint", "held", "learned", "load_learned"]

"""Image-text retrieval: which text belongs to which picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.towers.fusion import Comparison, Projected
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import chosen_teacher, similarity_kl
from mdpd_plugins.engine.side import PooledHead
from mdpd_plugins.registry.errors import DataError

RANKS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")


class Retrieval:
    """Contrastive loss, distillation between similarities, and recall, of two towers' features.

    Outputs of either path are (B, 2, E): features of the picture, times the learned scale, and of the text, both on
    the unit sphere, so that their products are the logits.

    Args:
        width: E of the side network's joint space, and of a pair of towers that has none of its own.
    """

    kind = "pair"
    classes: tuple[str, ...] = ()
    main_metric = "recall_at_1"
    coupled = True  # a sample's loss depends on the others of its batch
    causal = False

    def __init__(self, width: int):
        self.num_outputs = width

    def fusion(self, width: int) -> nn.Module:
        """What joins a pair of towers."""
        return Comparison()

    def side_head(self, widths: Sequence[int], adapter: Adapter) -> nn.Module:
        """A projection of each tower's mean token into one space."""
        return PooledHead(Projected(widths, self.num_outputs, Comparison()))

    def scored(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The features (B, 2, E)."""
        return logits

    def check_labels(self, labels: torch.Tensor, batch: int) -> None:
        """Raise DataError unless labels are (B,) numbers of items."""
        if tuple(labels.shape) != (batch,):
            raise DataError(f"labels of shape {tuple(labels.shape)} were given; retrieval takes an item's number each")

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """CLIP's loss (arXiv:2103.00020, fig. 3): cross-entropy over texts for each picture, and the other way round.

        Other members of the batch that belong to the same item are no wrong answers: they are left out (our choice).

        Args:
            logits: (B, 2, E). labels: (B,) int64, which item each is.
        """
        similar = similarities(logits)
        same = labels[:, None] == labels[None, :]
        others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        similar = similar.masked_fill(others, -torch.inf)
        target = torch.arange(len(labels), device=labels.device)
        return (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """KL between rows, and between columns, of both paths' similarities."""
        ours, theirs = similarities(student), similarities(teacher)
        return similarity_kl(ours, chosen_teacher(ours, theirs, settings.teacher), settings.kl_temperature)

    def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Recall at 1, 5 and 10 over the whole evaluation set: of both directions, and their mean `recall_at_k`.

        A picture's rank is how many texts of other items come before the best of its own; a text's rank is how many
        other items have a picture that comes before the best of its own (with one picture an item and several captions,
        as in COCO and Flickr30k, the usual definition).

        Args:
            logits: (N, 2, E). labels: (N,) int64, which item each is.
        """
        _, item = labels.unique(return_inverse=True)
        similar = similarities(logits.float())
        texts = _best_of_items(similar, item)
        own_text = texts.gather(1, item[:, None])
        pictures = _best_of_items(similar.T, item)
        own_picture = pictures.gather(1, item[:, None])
        other = item[:, None] != item[None, :]
        ranks = {
            "image_to_text": ((similar > own_text) & other).sum(1),
            "text_to_image": (pictures > own_picture).sum(1),
        }
        found = {}
        for k in RANKS:
            each = {f"{way}_recall_at_{k}": (ranks[way] < k).double().mean().item() for way in DIRECTIONS}
            found.update({f"recall_at_{k}": sum(each.values()) / len(each), **each})
        return found


def similarities(features: torch.Tensor) -> torch.Tensor:
    """(B, B) logits of features (B, 2, E): rows are pictures, columns texts."""
    return features[:, 0] @ features[:, 1].T


def _best_of_items(scores: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """(N, items): the best score of each row among the columns of each item."""
    best = scores.new_full((len(scores), int(item.max()) + 1), -torch.inf)
    return best.scatter_reduce(1, item.expand(len(scores), -1), scores, "amax")


__all__ = ["Retrieval", "similarities"]

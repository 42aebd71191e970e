"""Logits distillation, side -> backbone. The teacher is detached in every one of these."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def chosen_teacher(student: torch.Tensor, teacher: torch.Tensor, kind: str) -> torch.Tensor:
    """What the student learns from, without gradient: the teacher's outputs, the mean of both paths', or its own.

    Its own is a control: the same loss and no knowledge but the student's.

    Args:
        student, teacher: outputs of one shape. kind: `Settings.teacher`.
    """
    if kind == "mean":
        return (teacher.detach() + student.detach()) / 2
    return (teacher if kind == "side" else student).detach()


def nkd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    gamma: float,
    tau: float,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalised KD for three or more classes (NKD, Yang et al., ICCV 2023, arXiv:2303.13005, eq. 7).

    L = - T_t log S_t - gamma tau^2 sum_{i != t} N(T_i^tau) log N(S_i^tau), N normalising over non-target classes.

    Args:
        student, teacher: logits (B, C). labels: (B,) int64, the target class t. share: (B,), what each sample's loss is
            multiplied by; None for 1.
    """
    teacher = teacher.detach()
    shares = student.new_ones(len(student)) if share is None else share
    index = labels.unsqueeze(1)
    log_s = F.log_softmax(student, 1).gather(1, index)
    t = F.softmax(teacher, 1).gather(1, index)
    target = -(shares.unsqueeze(1) * t * log_s).mean()
    b, c = student.shape
    others = torch.ones_like(student, dtype=torch.bool).scatter(1, index, False)
    rest_s = F.log_softmax(student[others].view(b, c - 1) / tau, 1)
    rest_t = F.softmax(teacher[others].view(b, c - 1) / tau, 1)
    return target - gamma * tau**2 * (shares * (rest_t * rest_s).sum(1)).mean()


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al., arXiv:1503.02531), logits (B, C).

    For two classes: NKD's non-target term is zero there, one class being left.
    """
    return kl_rows(student, teacher, temperature).mean()


def kl_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """`kl` of each row, (B,)."""
    log_s = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher.detach() / temperature, 1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1)


def token_kl(student: torch.Tensor, teacher: torch.Tensor, counted: torch.Tensor, temperature: float) -> torch.Tensor:
    """The sum of `kl` over the tokens that count: word-level distillation (arXiv:1606.07947, sec. 3.1).

    Our choice before NKD for a language model: NKD's target term repeats the cross-entropy.

    Args:
        student, teacher: logits (T, V). counted: (T,) bool.
    """
    return kl_rows(student, teacher, temperature).masked_fill(~counted, 0.0).sum()


def bce(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy against the teacher's probabilities, multi-label logits (B, C)."""
    return F.binary_cross_entropy_with_logits(student, teacher.detach().sigmoid())


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of regression outputs (B, K)."""
    return F.mse_loss(student, teacher.detach())


def similarity_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL between the rows, and between the columns, of two similarity matrices (B, B) of a retrieval batch.

    Each row is the softmax over candidates that a contrastive loss sees; both directions are averaged.
    """
    return (kl(student, teacher, temperature) + kl(student.T, teacher.T, temperature)) / 2


__all__ = ["bce", "kl", "kl_rows", "mse", "nkd", "similarity_kl", "token_kl", "chosen_teacher"]

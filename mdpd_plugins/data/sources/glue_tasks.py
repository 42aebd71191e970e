"""GLUE's nine tasks: what their files and columns are called, what their labels mean, and how they are judged.

Wang et al., ICLR 2019 (arXiv:1804.07461), table 1. Column and label names of the hub's copy are those of its data
card (nyu-mll/glue), those of GLUE's own files are in the files' first lines.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        folder: of GLUE's own files.
        texts: the column of the text, or those of both texts of a pair, in the hub's copy; "label" is beside them.
        tsv: columns of the texts and, last, of the label in GLUE's own files; places where there is no header.
        classes: names of the labels in index order; none for a number to predict.
        metric: the task's official metric; where GLUE gives two (F1 and accuracy, Pearson and Spearman) the first.
    """

    folder: str
    texts: tuple[str, ...]
    tsv: tuple[str, ...] | tuple[int, ...]
    classes: tuple[str, ...] = ()
    metric: str = "accuracy"


_TWO = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_ENTAILED = ("entailment", "not_entailment")

TASKS = {
    "cola": GlueTask("CoLA", ("sentence",), (3, 1), ("unacceptable", "acceptable"), metric="matthews_correlation"),
    "sst2": GlueTask("SST-2", ("sentence",), ("sentence", "label"), ("negative", "positive")),
    "mrpc": GlueTask(
        "MRPC", _TWO, ("#1 String", "#2 String", "Quality"), ("not_equivalent", "equivalent"), metric="f1"
    ),
    "qqp": GlueTask("QQP", _QUESTIONS, (*_QUESTIONS, "is_duplicate"), ("not_duplicate", "duplicate"), metric="f1"),
    "stsb": GlueTask("STS-B", _TWO, (*_TWO, "score"), metric="pearson"),
    "mnli": GlueTask(
        "MNLI", ("premise", "hypothesis"), (*_TWO, "gold_label"), ("entailment", "neutral", "contradiction")
    ),
    "qnli": GlueTask("QNLI", ("question", "sentence"), ("question", "sentence", "label"), _ENTAILED),
    "rte": GlueTask("RTE", _TWO, (*_TWO, "label"), _ENTAILED),
    "wnli": GlueTask("WNLI", _TWO, (*_TWO, "label"), _ENTAILED[::-1]),
}

__all__ = ["TASKS", "GlueTask"]

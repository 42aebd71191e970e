"""The rows of docs/results.md: what each reached and what it took, from the lines of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.compare.result_lines import main_metric

Line = Mapping[str, Any]
BASE = "low_rank_alone"
NORM_BASE = "norm_alone"  # of what trains norms and output layer alone
OF_NORMS = {"mdpd_alone", "coach_norm"}
LORA = "lora_alone"
# Everything that learns sees augmented pictures; a reader learns from kept views of them.
AUGMENTED = "_aug"
# Lines from before a coach was calibrated (docs/results.md says which commit): the ablation of calibration.
RAW = "_raw"

ROWS = {
    "linear_alone": "linear probe, labels alone",
    "norm_alone": "norms, labels alone",
    "lora_alone": "LoRA (query and value), labels alone",
    "low_rank_alone": "low-rank updates, labels alone",
    "mdpd_alone": "`mdpd` (paper), labels alone",
    "mdpd_low_rank_alone": "`mdpd_low_rank`, labels alone",
    "ladder_kept": "the ladder itself, kept",
    "reader_kept": "the reader itself, kept",
    "coach_norm": "`mdpd_coach`: norms, taught by the better coach",
    "coach_low_rank": "`mdpd_coach_low_rank`: taught by the better coach",
    "coach_ladder": "control: taught by the ladder",
    "coach_reader": "control: taught by the reader",
    "coach_reader_often": "control: taught by the reader, labelled examples eight times an epoch",
    "coach_both": "taught by the reader and the backbone from labels alone, their mean",
    "self_training": "control: taught by the backbone from labels alone",
    "self_training_often": "control: taught by the backbone, labelled examples eight times an epoch",
    "fixmatch": "control: FixMatch, pseudo-labels of the backbone made anew in each step",
    "two_backbones": "control: taught by two backbones from labels alone, their mean",
}


@dataclass(frozen=True)
class Reached:
    """What one seed of a row reached.

    Attributes:
        value: the main metric on test.
        seconds: of processor time, the coach's own included.
        memory: bytes that a step holds above the frozen weights, of the second stage where there are two; None where
            it was not counted, which a sweep does with its first seed.
        to_lora: processor seconds until val first said what LoRA's best evaluation of the same seed says; None where
            it never did, or where a line has no evaluations.
    """

    value: float
    seconds: float
    memory: int | None = None
    to_lora: float | None = None


Row = Mapping[int, Reached]  # seed -> what it reached


def title(name: str) -> str:
    """What a page calls a row."""
    plain = name.removesuffix(AUGMENTED).removesuffix(RAW)
    said = ROWS.get(plain, plain)
    if name == f"coach_norm{AUGMENTED}":  # augmented rows have one coach
        said = "`mdpd_coach`: norms, taught by the reader"
    return said + (", augmented" if name.endswith(AUGMENTED) else ", not calibrated" if name.endswith(RAW) else "")


def base_of(name: str) -> str | None:
    """The row that trains the same weights from labels alone and untaught; None of that row itself."""
    end = AUGMENTED if name.endswith(AUGMENTED) else ""
    plain = name.removesuffix(AUGMENTED).removesuffix(RAW)
    return None if plain == BASE else (NORM_BASE if plain in OF_NORMS else BASE) + end


def labels_of(line: Line) -> int:
    """How many examples had labels; 0: all that there are."""
    sizes = [option.partition("=")[2] for option in line["options"] if option.startswith("data.source.train_size=")]
    return int(sizes[-1]) if sizes else 0


def rows_of(lines: Sequence[Line]) -> dict[str, Row]:
    """Row -> seed -> what it reached, of the lines of one task and number of labels; in the order of a page."""
    by_method: dict[str, dict[int, Line]] = {}
    for line in lines:
        by_method.setdefault(line["method"], {})[line["seed"]] = line
    rows: dict[str, dict[int, Reached]] = {}
    for method, own in by_method.items():
        lora = by_method.get(LORA + (AUGMENTED if method.endswith(AUGMENTED) else ""), {})
        rows[method] = {seed: _reached(line, lora.get(seed)) for seed, line in own.items()}
    kept = {f"{kind}_kept": (f"coach_{kind}{RAW}", f"coach_{kind}") for kind in ("reader", "ladder")}
    kept[f"reader_kept{AUGMENTED}"] = (f"coach_reader{AUGMENTED}",)
    for name, methods in kept.items():
        taught = {seed: line for method in methods for seed, line in by_method.get(method, {}).items()}
        rows[name] = {s: Reached(line["coach"]["kept"], line["coach"]["cpu_seconds"]) for s, line in taught.items()}
    rows["coach_low_rank"] = _better_coach(by_method, rows)
    order = [f"{name}{end}" for end in ("", AUGMENTED, RAW) for name in ROWS]
    return {name: rows[name] for name in dict.fromkeys([*order, *rows]) if rows.get(name)}


def _better_coach(by_method: Mapping[str, Mapping[int, Line]], rows: Mapping[str, Row]) -> dict[int, Reached]:
    """What coach="auto" does: the better of both on val, of equals the ladder. Both had to be trained for it."""
    kinds = ("coach_ladder", "coach_reader")
    found = {}
    for seed in sorted(set(by_method.get(kinds[0], {})) & set(by_method.get(kinds[1], {}))):
        best = max(kinds, key=lambda kind: max(by_method[kind][seed]["coach"]["scores"].values()))
        other = next(kind for kind in kinds if kind != best)
        more, own = by_method[other][seed]["coach"]["cpu_seconds"], rows[best][seed]
        # Whoever taught, the second stage is the same.
        memory = rows["coach_ladder"][seed].memory
        to_lora = None if own.to_lora is None else own.to_lora + more
        found[seed] = Reached(own.value, own.seconds + more, memory, to_lora)
    return found


def _reached(line: Line, lora: Line | None) -> Reached:
    coach = line["coach"].get("cpu_seconds", 0.0)
    memory = line["memory"]["total"] if line["memory"] else None
    to_lora = None
    if lora and line.get("evaluations") and lora.get("evaluations"):
        wanted = max(score for _, score in lora["evaluations"])
        there = [step for step, score in line["evaluations"] if score >= wanted]
        to_lora = coach + line["cpu_seconds"] * there[0] / line["steps"] if there else None
    return Reached(line["metrics"][main_metric(line)], line["cpu_seconds"] + coach, memory, to_lora)


__all__ = ["AUGMENTED", "RAW", "ROWS", "Line", "Reached", "Row", "base_of", "labels_of", "rows_of", "title"]

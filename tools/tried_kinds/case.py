"""One case: what somebody reported of another library, tried on this one."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mdpd_plugins.registry.errors import MDPDError

# Name of a tracker, as cases write it -> its repository.
TRACKERS = {
    "accelerate": "huggingface/accelerate",
    "datasets": "huggingface/datasets",
    "deit": "facebookresearch/deit",
    "mmpretrain": "open-mmlab/mmpretrain",
    "open_clip": "mlfoundations/open_clip",
    "pandas": "pandas-dev/pandas",
    "peft": "huggingface/peft",
    "ProtTrans": "agemagician/ProtTrans",
    "safetensors": "safetensors/safetensors",
    "timm": "huggingface/pytorch-image-models",
    "torch": "pytorch/pytorch",
    "torchvision": "pytorch/vision",
    "transformers": "huggingface/transformers",
}


@dataclass(frozen=True)
class Case:
    """A case and how to try it.

    Attributes:
        name: of the function. subject: its module's. what: one sentence, in our words.
        report: tracker and number of the public report that it follows, "peft 1732".
        expected: what should come out, word for word as `run` says it.
        at_first: what came out when it was first tried, where that was something else and has been mended.
        run: tries it in an empty folder, and says what came out.
    """

    name: str
    subject: str
    what: str
    report: str
    expected: str
    at_first: str
    run: Callable[[Path], str]

    def tried(self, folder: Path) -> str:
        """What comes out now; of an error its type and first line."""
        folder.mkdir(parents=True)
        try:
            with warnings.catch_warnings(), _silent():
                warnings.simplefilter("ignore")
                return self.run(folder)
        except Exception as error:
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


CASES: dict[str, Case] = {}


def case(what: str, report: str, expected: str, at_first: str = "") -> Callable[[Callable[[Path], str]], None]:
    """Register the function below as a case."""

    def register(function: Callable[[Path], str]) -> None:
        name, subject = function.__name__, function.__module__.rpartition(".")[2]
        assert name not in CASES and report.rpartition(" ")[0] in TRACKERS, name
        CASES[name] = Case(name, subject, what, report, expected, at_first, function)

    return register


def refusal(call: Callable[[], object], *words: str) -> str:
    """How a call ends that should be refused: by one of our errors, whose message has all these words."""
    try:
        call()
    except MDPDError as error:
        missing = [word for word in words if word not in str(error)]
        return "refused by name" if not missing else f"refused, but without saying {missing[0]!r}: {error}"
    return "taken without a word"


@contextlib.contextmanager
def _silent():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


__all__ = ["CASES", "TRACKERS", "Case", "case", "refusal"]

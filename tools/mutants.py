"""Change one operator, number or branch of a file at a time, and see whether its tests notice (mutation testing).

    python tools/mutants.py                          # every file of TESTS, 25 mutants each
    python tools/mutants.py registry/spec.py --mutants 1000
    python tools/mutants.py --table                  # the table of docs/testing.md from the lines

cosmic-ray's operators make the mutants. Its own runner starts Python once for each, which takes longer here than the
tests do. So this process imports the frameworks once, and forks for each mutant. Mutants are written into a copy of
the working tree; yours stays as it is. A file's mutants are a seeded draw, at most one for each place of the source.
Every mutant is a line of JSON in docs/data/mutants.jsonl; a file that is tried again replaces its lines there. The exit
status is 1 if the tests fail without a mutant.

Needs Linux or macOS, and `pip install cosmic-ray`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LINES = ROOT / "docs" / "data" / "mutants.jsonl"
ENGINE, REGISTRY = "mdpd_plugins/engine", "tests/registry"
# Of each file, the tests that are to notice; the quick ones first, because the first that fails ends a trial.
CATALOGUE = [f"{REGISTRY}/test_spec.py", f"{REGISTRY}/test_catalogue.py", f"{REGISTRY}/test_broken_plugins.py"]
TESTS = {
    f"{ENGINE}/logits_distillation.py": [
        "tests/engine/test_logits_distillation.py",
        "tests/tasks/test_language.py",
        "tests/tasks/test_retrieval.py",
    ],
    f"{ENGINE}/feature_distillation.py": [
        "tests/engine/test_feature_distillation.py",
        "tests/engine/test_padding.py",
        "tests/engine/test_sub_batch.py",
        "tests/engine/test_two_paths.py",
    ],
    f"{ENGINE}/split.py": ["tests/engine/test_split.py", "tests/engine/test_sub_batch.py"],
    f"{ENGINE}/batch_parts.py": [
        "tests/engine/test_feature_distillation.py",
        "tests/engine/test_sub_batch.py",
        "tests/training/parallel/test_processes.py::test_two_processes_give_the_weights_of_one[texts and accumulation]",
    ],
    f"{ENGINE}/coaching.py": ["tests/engine/test_coaching.py"],
    "registry/attempts.py": [f"{REGISTRY}/test_attempts.py"],
    "registry/catalogue.py": CATALOGUE,
    "registry/environment_report.py": CATALOGUE,
    "registry/errors.py": CATALOGUE,
    "registry/foreign.py": [f"{REGISTRY}/test_hostile_plugins.py"],
    # Of the others, which start processes for minutes, those that look at what the loader says.
    "registry/loader.py": [
        f"{REGISTRY}/test_loader.py",
        *CATALOGUE,
        f"{REGISTRY}/test_hostile_plugins.py::test_a_disabled_plugin_is_not_even_imported",
        f"{REGISTRY}/test_hostile_plugins.py::test_doctor_says_who_provides_what_and_what_is_off",
        f"{REGISTRY}/test_hostile_plugins.py::test_names_and_metadata_that_cannot_be_written_are_escaped",
        f"{REGISTRY}/test_hostile_plugins.py::test_strict_mode_says_that_a_plugin_was_left_out",
    ],
    "registry/references.py": CATALOGUE,
    "registry/registration.py": CATALOGUE,
    "registry/spec.py": CATALOGUE,
}
# Imported before the first fork. Nothing of the project may be among them.
FRAMEWORKS = [
    "torch",
    "torchvision",
    "transformers",
    "transformers.trainer",
    "mmengine.runner",
    "mmpretrain.models",
    "open_clip",
    "timm",
    "scipy.stats",
    "sklearn.linear_model",
    "hypothesis",
    "pytest",
]


class Mutant(NamedTuple):
    """A change of one place of a source."""

    line: int
    operator: str
    before: str
    after: str
    source: str


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--mutants", type=int, default=25, metavar="N", help="of each file, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=LINES, metavar="FILE", help="lines of JSON")
    parser.add_argument("--table", action="store_true", help="print the table of what the lines hold, and try nothing")
    args = parser.parse_args(arguments)
    if unknown := [file for file in args.files if file not in TESTS]:
        parser.error(f"no tests are named for {', '.join(unknown)}; there are some for {', '.join(TESTS)}")
    if args.table:
        print(table(read_lines(args.out)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="mdpd_mutants_") as folder:
        copy = Path(folder).resolve()
        copy_tree(copy)
        warm_up(copy)
        for file in args.files or TESTS:
            found = list(tried(copy, file, args.mutants, args.seed))
            if not found:
                return 1
            kept = [line for line in read_lines(args.out) if line["file"] != file]
            lines = sorted([*kept, *found], key=lambda line: (line["file"], line["line"], line["operator"]))
            args.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return 0


def tried(copy: Path, file: str, count: int, seed: int) -> Iterator[dict]:
    """A line for each mutant of a file; nothing if the tests fail without one."""
    source = (copy / file).read_text(encoding="utf-8")
    start = time.monotonic()
    outcome, output = attempt(copy, TESTS[file], timeout=1800)
    usual = time.monotonic() - start
    if outcome != "survived":
        print(f"the tests of {file} fail without a mutant:\n{output}", file=sys.stderr)
        return
    print(f"{file}: tests take {usual:.0f} s", file=sys.stderr, flush=True)
    for mutant in drawn(source, count, f"{file} {seed}"):
        try:
            (copy / file).write_text(mutant.source, encoding="utf-8")
            outcome, _ = attempt(copy, TESTS[file], timeout=30 + 2 * usual)
        finally:
            (copy / file).write_text(source, encoding="utf-8")
        print(f"{file}:{mutant.line} {outcome}: {mutant.before} -> {mutant.after}", file=sys.stderr, flush=True)
        yield {"file": file, "outcome": outcome, **{k: v for k, v in mutant._asdict().items() if k != "source"}}


def attempt(copy: Path, tests: list[str], timeout: float) -> tuple[str, str]:
    """How tests end in a forked process: "survived", "killed" or "timeout", and the end of what they print."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            _run_tests(output.fileno(), tests)
        end, status = time.monotonic() + timeout, None
        try:
            while status is None and time.monotonic() < end:
                done, found = os.waitpid(child, os.WNOHANG)
                status = found if done else None
                time.sleep(0.05)
        finally:  # the group, because tests start processes; also when this process is asked to end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if status is None:
                os.waitpid(child, 0)
        if status is None:
            return "timeout", ""
        output.seek(0)
        return "survived" if status == 0 else "killed", output.read()[-3000:]


def _run_tests(output: int, tests: list[str]) -> None:
    status = 3
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        import pytest

        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not gpu", *tests]))
    finally:
        os._exit(status)


def drawn(source: str, count: int, seed: str) -> list[Mutant]:
    """Mutants of a source, at most one for each place, in the order of lines."""
    places: dict[tuple, list[tuple[str, int]]] = {}
    for operator, occurrence, place in possible(source):
        places.setdefault(place, []).append((operator, occurrence))
    draw = random.Random(seed)
    chosen = draw.sample(sorted(places), min(count, len(places)))
    return [_mutant(source, *draw.choice(places[place])) for place in sorted(chosen)]


def possible(source: str) -> Iterator[tuple[str, int, tuple]]:
    """(operator, its occurrence, place) of every mutant but changes of annotations, and of signals to processes."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import Visitor, get_ast

    class Places(Visitor):
        def __init__(self, operator):
            self.operator, self.found = operator, []

        def visit(self, node):
            self.found.extend(self.operator.mutation_positions(node))
            return node

    annotated, lines = list(annotations(source)), source.splitlines()
    for name in sorted(plugins.operator_names()):
        if name.startswith("core/Variable"):  # these want the name of a variable
            continue
        places = Places(plugins.get_operator(name)())
        places.walk(get_ast(source))
        for occurrence, place in enumerate(places.found):
            signals = (
                "os.kill(" in lines[place[0][0] - 1]
            )  # with another number, a process that is not ours would get it
            if not signals and not any(start <= place[0] < end for start, end in annotated):
                yield name, occurrence, tuple(place[0])


def annotations(source: str) -> Iterator[tuple[tuple, tuple]]:
    """(start, end) of every annotation: the modules never evaluate them."""
    for node in ast.walk(ast.parse(source)):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.expr):
                end = (annotation.end_lineno, annotation.end_col_offset)
                yield (annotation.lineno, annotation.col_offset), end


def _mutant(source: str, operator: str, occurrence: int) -> Mutant:
    from cosmic_ray import mutating, plugins

    changed = mutating.mutate_code(source, plugins.get_operator(operator)(), occurrence)
    assert changed is not None
    lines, others = source.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(None, lines, others, autojunk=False).get_opcodes()
    _, start, end, other_start, other_end = next(block for block in blocks if block[0] != "equal")
    before, after = " ".join(lines[start:end]).strip(), " ".join(others[other_start:other_end]).strip()
    return Mutant(start + 1, operator.removeprefix("core/"), before, after, changed)


def copy_tree(copy: Path) -> None:
    """The working tree without what git ignores, with every package where an installer would put it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    for name in ("registry", "zoo_configs"):
        (copy / "mdpd_plugins" / name).symlink_to(Path("..") / name)


def warm_up(copy: Path) -> None:
    """Make the copy what `import mdpd_plugins` finds, here and in processes that tests start, and import frameworks."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XDG_CACHE_HOME"] = str(copy / "cache")  # a mutant may write or remove what lies there
    # A mutant of the same size and second as the source must not be answered from a compiled file.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    # Processes that tests start run an environment of their own, which has the copy before what is installed.
    environment = copy / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if path.endswith("-packages")]
    lines = [str(copy), *(f"import site; site.addsitedir({path!r})" for path in installed)]
    (packages / "copy.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.executable = str(environment / "bin" / "python")
    sys.path.insert(0, str(copy))
    os.chdir(copy)
    for name in FRAMEWORKS:
        importlib.import_module(name)
    if any(name.partition(".")[0] == "mdpd_plugins" for name in sys.modules):
        raise RuntimeError("a framework has imported mdpd_plugins, so forked processes would not read mutants")
    spec = importlib.util.find_spec("mdpd_plugins")
    if spec is None or spec.origin != str(copy / "mdpd_plugins" / "__init__.py"):
        raise RuntimeError(f"mdpd_plugins is imported from {spec and spec.origin} instead of the copy in {copy}")


def table(lines: list[dict]) -> str:
    """Counts of each file, in Markdown."""
    rows = ["| file | mutants | killed | survived |", "| --- | --- | --- | --- |"]
    counts = []
    for file in dict.fromkeys(line["file"] for line in lines):
        outcomes = [line["outcome"] for line in lines if line["file"] == file]
        counts.append((len(outcomes), outcomes.count("survived")))
        rows.append(f"| `{file}` | {len(outcomes)} | {len(outcomes) - counts[-1][1]} | {counts[-1][1]} |")
    total, survived = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return "\n".join([*rows, f"| all | {total} | {total - survived} | {survived} |"])


def read_lines(path: Path) -> list[dict]:
    """The mutants in a file of lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main())

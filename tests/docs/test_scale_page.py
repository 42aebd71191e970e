"""The plans that the page on scale shows are what the command prints."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from mdpd_plugins.cli.main import main
from mdpd_plugins.planning.plan import Plan, print_plans
from mdpd_plugins.training.step_memory import StepMemory

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    \S?.*\n)+", PAGE, re.MULTILINE)]
TABLES = [block for block in BLOCKS if block.startswith("method ")]
COMMANDS = [block for block in BLOCKS if block.startswith("mdpd bench zoo_configs")]


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_the_page_has_two_commands_with_their_tables():
    assert len(TABLES) == len(COMMANDS) == 2


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_the_form_that_the_command_prints(table, monkeypatch, capsys):
    plans = {}
    for line in lines(table)[1:-3]:
        name, *values = line.split()
        weights, total, side, optimiser, transient = (round(float(v.replace(",", "")) * 2**20) for v in values[:5])
        step = StepMemory(side_parameters=side, optimiser=optimiser, transient=transient)
        assert abs(step.total - total) < 0.2 * 2**20, "the columns do not add up"
        trained = int(values[7].replace(",", ""))
        plans[name] = Plan(weights=weights, step=step, evaluation=0, features=0, trained=trained, side=0, batch=32)
        assert abs(plans[name].run - float(values[6].replace(",", "")) * 2**20) < 0.2 * 2**20
    monkeypatch.setenv("COLUMNS", "100")
    print_plans(plans)
    printed = lines(capsys.readouterr().out)
    assert printed[0] == lines(table)[0] and printed[-3:] == lines(table)[-3:]
    # Sums of rounded numbers may differ in their last digit.
    assert [len(line) for line in printed] == [len(line) for line in lines(table)]


@pytest.mark.slow
def test_the_first_plan_is_what_the_command_prints_now(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(COMMANDS[0].replace("\\\n", " "))
    assert program == "mdpd" and main(arguments) == 0
    printed = lines(capsys.readouterr().out)
    assert printed[-len(lines(TABLES[0])) :] == lines(TABLES[0])

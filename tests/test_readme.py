"""What the README promises at its top is what runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_ci_runs_the_test_command_as_it_stands():
    assert COMMANDS[1].endswith("-m pytest -n 2 --dist loadfile")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] in script.splitlines()


def test_every_config_that_it_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"zoo_configs/[\w/]+\.py", text)
    assert len(named) >= 5
    assert [n for n in named if not (ROOT / n).is_file()] == []

"""What the README promises at its top is what runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_ci_runs_the_test_command_as_it_stands():
    (command,) = (c for c in COMMANDS if c.endswith("-m pytest -n 2 --dist loadfile"))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in script.splitlines()


def test_the_first_command_is_the_main_job_and_its_output_is_what_the_tool_wrote():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    config = re.search(r"zoo_configs/[\w/]+\.py", COMMANDS[0])
    assert config and "tools/train.py" in COMMANDS[0]
    ((shown, output),) = re.findall(r"<!-- printed by: (.+?) -->\n+```\n(.+?)```", text, re.DOTALL)
    assert f"tools/train.py {config[0]}" in shown
    assert re.search(r"accuracy, backbone path │ 0\.9\d+ ", output) and "loads with" in output


def test_every_page_that_it_links_to_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^):]+)\)", text)}
    assert len(linked) > 12 and [link for link in linked if not (ROOT / link).is_file()] == []


def test_every_config_that_it_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"zoo_configs/[\w/]+\.py", text)
    assert len(named) >= 5
    assert [n for n in named if not (ROOT / n).is_file()] == []

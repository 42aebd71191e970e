"""How a run shows itself: soon, in a bar on a terminal, in short lines elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from running import write_config

STARTED = "import sys, time; sys.argv = ['mdpd', *sys.argv[1:]]; from mdpd_plugins.cli.main import main; main()"


def test_the_training_package_loads_no_library_that_not_every_run_needs():
    heavy = (
        "transformers",
        "peft",
        "bitsandbytes",
        "sklearn",
        "matplotlib",
        "torchvision",
        "datasets",
        "mmpretrain",
        "open_clip",
    )
    code = f"import sys, mdpd_plugins.training; print(sorted(set({heavy!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    code = "import transformers, mdpd_plugins.training; transformers.BertConfig(); import mmengine.optim"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_line_comes_before_the_libraries(tmp_path):
    config = write_config(tmp_path, train={"max_steps": 1})
    for command in (["-c", STARTED, "train"], [str(Path(__file__).parents[2] / "tools" / "train.py")]):
        with subprocess.Popen(
            [sys.executable, *command, str(config), "--dry-run"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr.readline() == f"building {config} ...\n"
            process.kill()


def test_on_a_terminal_there_is_a_bar_with_the_time_left(tmp_path):
    config = write_config(tmp_path, train={"max_steps": 4, "log_every": 1, "val_every": 2})
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", STARTED, "train", str(config), "--work-dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side has gone
            break
        if not part:
            break
        said += part
    assert process.wait() == 0, said.decode()
    os.close(ours)
    text = said.decode()
    assert "training" in text and "4/4" in text and "━" in text
    assert "evaluated after step 2/4" in text and "step 1/4  left" not in text
    assert text.rindex("4/4") < text.index("exported to")

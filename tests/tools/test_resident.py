"""The command that measures what a whole run holds."""

import sys

import pytest
from running import write_config

from tools.resident import main


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the command reads /proc")
def test_a_run_is_measured_above_its_libraries(tmp_path, capsys):
    config = write_config(tmp_path, train={"max_steps": 2})
    target = tmp_path / "found.json"
    assert main([str(config), "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    figures = dict(line.split(": ") for line in printed.splitlines() if ": " in line)
    names = ("peak", "libraries", "above", "held_above")
    peak, libraries, above, held = (float(figures[name].split()[0].replace(",", "")) for name in names)
    assert peak > libraries > 100 and above == pytest.approx(peak - libraries, abs=0.2)
    assert 0 < held < above < 400 and "iter_2.pth" in figures and "in 2 steps" in printed
    assert target.is_file()

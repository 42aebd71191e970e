"""The command `mdpd`, run as people run it."""

import json
import os
import re
import subprocess
import sys

import pytest
from packages import run_mdpd, write_package, write_plugin

from mdpd_plugins.cli.main import main


def test_doctor_says_with_which_versions_the_catalogue_was_verified(tmp_path):
    done = run_mdpd("doctor", "--quick", "--json", site=tmp_path)
    verified = json.loads(done.stdout)["verified_with"]
    assert {"torch", "transformers", "mmpretrain", "open_clip_torch"} <= set(verified)
    said = run_mdpd("doctor", "--quick", site=tmp_path).stdout
    assert f"The catalogue was verified with torch {verified['torch']}, " in said


def test_list_backbones_prints_json_rows(tmp_path):
    done = run_mdpd("list-backbones", "--json", site=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    fields = {"name", "zoo", "family", "modality", "provided_by", "verified", "capabilities"}
    assert all(set(row) == fields for row in rows)
    row = next(row for row in rows if row["name"] == "huggingface/minilm-l6")
    assert {k: v for k, v in row.items() if k not in ("verified", "capabilities")} == {
        "name": "huggingface/minilm-l6",
        "zoo": "huggingface",
        "family": "bert",
        "modality": "text",
        "provided_by": "mdpd-plugins:huggingface",
    }


def test_list_backbones_filters_by_zoo_modality_and_words(tmp_path):
    words = ("--search", "on the hub")  # named checkpoints, not model types
    done = run_mdpd("list-backbones", "--zoo", "huggingface", "--modality", "text", *words, site=tmp_path)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["huggingface/bert-base-uncased", "huggingface/gpt2-small", "huggingface/minilm-l6"]
    assert done.stderr == "3 backbones\n"


def test_list_backbones_imports_no_framework():
    script = (
        "import sys\n"
        "from mdpd_plugins.cli.main import main\n"
        "assert main(['list-backbones', '--json']) == 0\n"
        "heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'transformers', 'open_clip', 'rich'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list-backbones", "--zoo", "hugingface"], "did you mean 'huggingface'"),
        (["list-backbones", "--modality", "sound"], "there is no modality 'sound'; known: image"),
        (["show", "huggingface/bert-base"], "did you mean 'huggingface/bert-base-uncased'"),
        (["show", "bert-base-uncased"], "did you mean 'huggingface/bert-base-uncased'?"),
    ],
)
def test_a_wrong_name_is_one_line_and_status_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and message in captured.err and captured.err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m mdpd_plugins.cli.main list-backbones | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("list-backbones", "show", "doctor", "train", "export"))


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"mdpd-plugins \d+\.\d+\.\d+\n", capsys.readouterr().out)


# ---- doctor


def findings(site, *, level=None):
    done = run_mdpd("doctor", "--quick", "--json", site=site)
    result = json.loads(done.stdout)
    assert done.returncode == (0 if result["ok"] else 1), done.stderr
    return {f["topic"]: f for f in result["findings"] if level is None or f["level"] == level}


def test_doctor_lists_our_requirements_with_their_versions(tmp_path):
    packages = json.loads(run_mdpd("doctor", "--quick", "--json", site=tmp_path).stdout)["packages"]
    by_name = {package["name"]: package for package in packages}
    assert {"pluggy", "rich", "torch", "torchvision", "mmengine", "safetensors", "numpy"} <= set(by_name)
    assert by_name["pluggy"]["ok"] and by_name["pluggy"]["extra"] == ""
    assert by_name["transformers"]["extra"] == "huggingface"
    assert "pytest" not in by_name and "mdpd-plugins" not in by_name


@pytest.mark.parametrize(
    ("installed", "topic", "fix"),
    [
        ({"open_clip_torch": "4.0.1"}, "open_clip", "open_clip_torch>=3.3,<4"),
        ({"open_clip_torch": "2.30"}, "open_clip", "open_clip_torch>=3.3,<4"),
        ({"transformers": "4.57.0"}, "transformers", "transformers>=5.9,<6"),
        (
            {"mmpretrain": "1.2.0", "mmcv": "2.1.0", "mmcv-lite": "2.2.0"},
            "mmcv",
            "pip uninstall mmcv mmcv-lite",
        ),
        ({"mmpretrain": "1.2.0", "mmcv-lite": "2.4.0"}, "mmcv", "pip install mmcv-lite==2.2.0"),
        (
            {"mmpretrain": "1.2.0", "mmcv-lite": "2.2.0", "transformers": "5.9.0", "pycocotools": "2.0.10"},
            "pycocotools",
            "pip uninstall pycocotools",
        ),
        ({"rich": "1.0"}, "rich", "pip install 'rich>=13'"),
        ({"mmengine": "0.8.0"}, "mmengine", "pip install 'mmengine"),
    ],
)
def test_doctor_recognises_versions_that_do_not_work(tmp_path, installed, topic, fix):
    for distribution, version in installed.items():
        write_package(tmp_path, distribution, version)
    assert fix in findings(tmp_path, level="problem")[topic]["fix"]


def test_doctor_recognises_a_torchvision_made_for_another_torch(tmp_path):
    write_package(tmp_path, "torch", "2.9.0+cpu")
    write_package(tmp_path, "torchvision", "0.29.0+cu128", metadata="Requires-Dist: torch (==2.14.0)\n")
    problem = findings(tmp_path, level="problem")["torch and torchvision"]
    assert "--force-reinstall torch torchvision" in problem["fix"]


def test_doctor_notes_the_traps_that_stop_nothing(tmp_path):
    write_package(tmp_path, "mmengine", "0.10.7")
    write_package(tmp_path, "torch", "2.14.0")
    write_package(tmp_path, "mmpretrain", "1.2.0")
    write_package(tmp_path, "numpy", "2.5.0")
    notes = findings(tmp_path, level="note")
    assert "weights_only" in notes["resuming with mmengine"]["fix"]
    assert "no longer has" in notes["mmpretrain retrieval metrics"]["message"]


def test_doctor_notes_a_plugin_that_is_slow_to_load(tmp_path):
    write_plugin(tmp_path, "slow", "import time\ntime.sleep(0.7)\n" + SLOW)
    assert "plugin slow" in findings(tmp_path, level="note")


def test_doctor_survives_a_torch_that_ends_the_interpreter(tmp_path):
    write_package(tmp_path, "acme-torch", modules={"torch": "import os\nos._exit(132)"})
    done = run_mdpd("doctor", "--json", site=tmp_path)
    torch = [f for f in json.loads(done.stdout)["findings"] if f["topic"] == "torch"]
    assert done.returncode == 1
    assert torch[0]["level"] == "problem" and "status 132" in torch[0]["message"]


def test_doctor_recognises_missing_compiled_operators(tmp_path):
    write_package(
        tmp_path,
        "acme-torchvision",
        modules={"torchvision": "raise RuntimeError('operator torchvision::nms does not exist')"},
    )
    script = (
        "from mdpd_plugins.cli.environment import PROBE, probed, report_probe\n"
        "from mdpd_plugins.registry.imports import begin\n"
        "from mdpd_plugins.registry import EnvironmentReport\n"
        "report = EnvironmentReport()\n"
        "report_probe(report, probed(begin(PROBE)))\n"
        "print(*(f'{f.level} {f.topic}: {f.message}: {f.fix}' for f in report.findings), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    torch, vision = done.stdout.splitlines()
    assert torch.startswith("ok torch: ")
    assert vision.startswith("problem torchvision: its compiled operators were built for another torch")
    assert "in one command and from one index" in vision


SLOW = """
from mdpd_plugins.registry import hookimpl

@hookimpl
def register_backbones(register):
    pass
"""

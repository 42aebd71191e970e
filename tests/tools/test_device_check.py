"""The script for a GPU, tried on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "device_check.sh"


def check(*arguments, **env):
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable, **env}, capture_output=True, text=True, timeout=900
    )


@pytest.mark.gpu
@pytest.mark.skipif("MDPD_TEST_DEVICE" not in os.environ, reason="MDPD_TEST_DEVICE=cpu tries the whole script")
def test_the_small_form_runs_tests_bench_and_rival_and_leaves_their_figures(tmp_path):
    done = check(tmp_path / "out", "--small", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [json.loads(line) for line in (tmp_path / "out" / "steps.jsonl").read_text().splitlines()]
    assert [(s["step"], s["status"]) for s in steps] == [("tests", 0), ("bench_vit_b", 0), ("outside_decoder", 0)]
    assert " passed" in (tmp_path / "out" / "tests.log").read_text()
    bench = json.loads((tmp_path / "out" / "bench_vit_b.json").read_text())
    assert bench["results"][0]["training_state_bytes"] > 0
    outside = json.loads((tmp_path / "out" / "outside_decoder.json").read_text())
    assert [row["name"] for row in outside["results"]] == ["peft lora", "mdpd_low_rank"]


def test_a_failed_step_is_the_exit_status(tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\ncase "$*" in *cuda*) echo cpu ;; *) echo broken; exit 3 ;; esac\n')
    fake.chmod(0o755)
    done = check(tmp_path / "out", "--small", PYTHON=str(fake))
    assert done.returncode == 1 and "tests: status 3" in done.stdout and "broken" in done.stdout
    assert len((tmp_path / "out" / "steps.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("arguments, said", [([], "name a folder"), (["out", "--smal"], "--smal is not known")])
def test_what_is_missing_is_said(tmp_path, arguments, said):
    done = check(*arguments)
    assert done.returncode == 2 and said in done.stderr


def test_without_a_gpu_it_says_so(tmp_path):
    done = check(tmp_path / "out", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "--small" in done.stderr

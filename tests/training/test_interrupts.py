"""SIGTERM and Ctrl-C save within one step, say how to go on, and end as a shell expects."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch
from running import main, run, same, start, weights, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.training.checkpoints import latest_checkpoint
from mdpd_plugins.training.interrupts import Interrupted, InterruptHook

STEPS = 400


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """(sections, work directory) of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("untouched")
    config = write_config(folder, train={"max_steps": 24, "checkpoint_every": 50, "val_every": 50})
    assert main([config, "--work-dir", folder / "run"]) == 0
    return folder / "run"


def interrupted(tmp_path, number, *more, group=False, **train):
    """The exit status, the config, the work directory and what was said of a run that a signal came to in a step."""
    given = {"max_steps": STEPS, "checkpoint_every": 1000, "val_every": 1000, "log_every": 1, **train}
    config = write_config(tmp_path, train=given)
    work_dir, log = tmp_path / "run", tmp_path / "log"
    process = start([config, "--work-dir", work_dir, *more], log)
    while process.is_alive() and "step 3/" not in (log.read_text() if log.exists() else ""):
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    return process.exitcode, config, work_dir, log.read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_saves_says_how_to_go_on_and_ends_with_the_signals_status(tmp_path, number, status):
    code, _, work_dir, said = interrupted(tmp_path, number)
    newest = latest_checkpoint(work_dir)
    step = int(newest.stem[5:])
    assert code == status and 3 <= step < STEPS
    logged = max(int(line.split()[1].split("/")[0]) for line in said.splitlines() if line.startswith("step "))
    assert step - logged <= 1, "it went on for more than the step that the signal came in"
    name = signal.Signals(number).name
    assert f"interrupted by {name} after step {step} of {STEPS}, saved in {newest}: the same command" in said
    assert "Traceback" not in said and not list(work_dir.glob(".*"))
    assert not (work_dir / "summary.json").exists() and not (work_dir / "export").exists()


def test_what_was_interrupted_ends_as_what_was_not(tmp_path, untouched):
    """Two times, the second one in the resumed run; the weights are those of the run in one piece."""
    given = {"max_steps": 24, "checkpoint_every": 50, "val_every": 50}
    config = write_config(tmp_path, train=given)
    work_dir, log = tmp_path / "run", tmp_path / "log"
    for moment in (5, 14):
        hook = {"type": "SignalHook", "step": moment}
        hooked = write_config(tmp_path / "hooked", train=given, custom_imports=HOOKS, custom_hooks=[hook])
        resume = ["--resume"] if moment > 5 else []
        assert run([hooked, "--work-dir", work_dir, *resume], log) == 143, log.read_text()
        assert latest_checkpoint(work_dir).name == f"iter_{moment}.pth"
    assert run([config, "--work-dir", work_dir, "--resume"], log) == 0, log.read_text()
    assert same(weights(work_dir, 24), weights(untouched, 24))


HOOKS = {"imports": ["kill_hook"]}


def test_an_evaluation_is_not_waited_for(tmp_path):
    given = {"max_steps": 6, "checkpoint_every": 50, "val_every": 4}
    hook = {"type": "SignalHook", "step": 4, "moment": "validation"}
    config = write_config(tmp_path, train=given, data={"eval_batch_size": 4}, custom_imports=HOOKS, custom_hooks=[hook])
    log = tmp_path / "log"
    assert run([config, "--work-dir", tmp_path / "run"], log) == 143, log.read_text()
    assert latest_checkpoint(tmp_path / "run").name == "iter_4.pth"
    state = torch.load(tmp_path / "run" / "iter_4.pth", weights_only=True)
    assert state["meta"]["iter"] == 4
    assert "after step 4 of 6" in log.read_text()


@pytest.fixture
def heeded():
    """SIGINT as in a terminal: tests that a script runs in the background are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_does_not_wait(capfd, heeded):
    hook = InterruptHook()
    with pytest.raises(KeyboardInterrupt) as stop, hook.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert hook.asked == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert not isinstance(stop.value, Interrupted)
    assert capfd.readouterr().err == "SIGINT: saving after this step; once more ends at once, without\n"


def test_an_ignored_signal_stays_ignored(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hook = InterruptHook()
    with hook.listening():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    assert hook.asked == 0 and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_handlers_are_afterwards_what_they_were(capsys, heeded):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = InterruptHook()
    with pytest.raises(RuntimeError, match="anything"), hook.listening():
        assert signal.getsignal(signal.SIGTERM) == hook._ask
        raise RuntimeError("anything")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    # Data loaders that were ended by the same signal are no fault of the run.
    with pytest.raises(Interrupted, match="newest checkpoint"), InterruptHook().listening():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker was killed")
    # A signal handler is the main thread's affair.
    thread = threading.Thread(target=lambda: InterruptHook().listening().__enter__())
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_command_line_ends_as_the_signal_asks(monkeypatch, capsys):
    from mdpd_plugins.cli import list_backbones

    def run(args):
        raise Interrupted("saved", signal.SIGTERM)

    monkeypatch.setattr(list_backbones, "run", run)
    assert mdpd(["list-backbones"]) == 143
    assert capsys.readouterr().err == "saved\n"

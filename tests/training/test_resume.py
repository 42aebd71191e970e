"""A run that is killed and resumed ends where a run ends that nobody touched, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time
from itertools import islice

import pytest
from running import image_folder, run, same, start, text_table, weights, write_config

from mdpd_plugins.training import build_experiment, load_config
from mdpd_plugins.training.checkpoints import read_run

STEPS = 12
KILL = {"imports": ["kill_hook"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {"images": str(image_folder(folder / "images")), "texts": str(text_table(folder / "texts.csv"))}


def sections(data, scenario):
    """Config sections of a scenario; with pictures, random crops and flips make each epoch see other data."""
    images = {
        "data_root": data["images"],
        "data": {"augment": "crop+flip", "batch_size": 8},
        "distill": {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "norm_gradient": "exact"},
        "optim": {"clip_grad": 1.0},
        "train": {"max_steps": STEPS, "checkpoint_every": 3, "val_every": 4},
    }
    if scenario == "pictures":
        return images
    if scenario == "loader workers":
        return {**images, "data": {**images["data"], "num_workers": 2}}
    if scenario == "automatic split":
        # Six warm-up steps and four that measure: the kill at step 8 comes between two measurements.
        auto = {"shallow": "auto", "deep": "auto", "warmup": 0.5, "auto_batches": 4}
        return {**images, "distill": {**images["distill"], **auto}}
    if scenario == "accumulation":
        # A checkpoint after step 3 or 6 lies within what two steps of four batches take together.
        return {**images, "optim": {"accumulate": 4, "clip_grad": 1.0}}
    if scenario == "low rank":
        return {**images, "distill": {**images["distill"], "backbone_update": "norm+low_rank", "rank": 2}}
    if scenario == "everything drawn":
        # All that draws random numbers in a step, the average, and a schedule of two parts.
        return {
            **images,
            "data": {**images["data"], "augment": "crop+flip+randaugment", "mix": "mixup+cutmix"},
            "distill": {**images["distill"], "side_dropout": 0.2},
            "task": {"label_smoothing": 0.1, "class_weights": "balanced"},
            "optim": {"clip_grad": 1.0, "schedule": "linear", "warmup": 0.5},
            "train": {**images["train"], "ema": 0.9},
        }
    if scenario == "local gradients":
        return {**images, "distill": {**images["distill"], "norm_gradient": "local"}}
    assert scenario == "texts"
    source = {"type": "table", "path": data["texts"], "text_column": "text", "label_column": "label"}
    return {**images, "data_root": None, "backbone_key": "hf-minilm", "data": {"source": source, "batch_size": 6}}


def configs(tmp_path, given, *hooks):
    """(config, the same with hooks)."""
    given = dict(given)
    backbone = given.pop("backbone_key", "hf-vit")
    plain = write_config(tmp_path / "plain", backbone, **given)
    return plain, write_config(tmp_path / "hooked", backbone, **given, custom_imports=KILL, custom_hooks=list(hooks))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, data):
    """Work directory of the uninterrupted run of a scenario, run when first asked for."""
    done = {}

    def get(scenario):
        if scenario not in done:
            folder = tmp_path_factory.mktemp("untouched")
            plain, _ = configs(folder, sections(data, scenario))
            assert run([plain, "--work-dir", folder / "run"], folder / "log") == 0, (folder / "log").read_text()
            done[scenario] = folder / "run"
        return done[scenario]

    return get


def assert_same_end(work_dir, untouched):
    """Weights, optimisers, schedules, the exported file and the metrics are equal."""
    ours, theirs = (read_run(w / f"iter_{STEPS}.pth") for w in (work_dir, untouched))
    assert same(ours["state_dict"], theirs["state_dict"])
    for name, state in theirs["optimizer"].items():
        for index, moments in state["state"].items():
            assert same(ours["optimizer"][name]["state"][index], moments), (name, index)
        assert ours["optimizer"][name]["param_groups"] == state["param_groups"]
    exported = [w / "export" / "model.safetensors" for w in (work_dir, untouched)]
    assert exported[0].read_bytes() == exported[1].read_bytes()
    summaries = [json.loads((w / "summary.json").read_text()) for w in (work_dir, untouched)]
    assert summaries[0]["metrics"] == summaries[1]["metrics"] != {}


def killed_and_resumed(tmp_path, given, step, moment):
    plain, hooked = configs(tmp_path, given, {"type": "KillHook", "step": step, "moment": moment})
    work_dir, log = tmp_path / "run", tmp_path / "log"
    assert run([hooked, "--work-dir", work_dir], log) == -signal.SIGKILL, log.read_text()
    assert not (work_dir / "summary.json").exists()
    # As a kill leaves it that comes in the middle of a write: it is newer than any other, and not whole.
    (work_dir / ".iter_99.pth.part").write_bytes((work_dir / "iter_3.pth").read_bytes()[:5000] if step < 9 else b"")
    assert run([plain, "--work-dir", work_dir, "--resume"], log) == 0, log.read_text()
    return work_dir


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (5, "before step"),
        (6, "after step"),
        (9, "before saving"),
        (9, "while writing"),
        (STEPS, "before validation"),
        (STEPS, "before export"),
    ],
)
def test_a_killed_run_resumes_to_the_same_end(tmp_path, data, untouched, step, moment):
    work_dir = killed_and_resumed(tmp_path, sections(data, "pictures"), step, moment)
    assert_same_end(work_dir, untouched("pictures"))
    assert not list(work_dir.glob(".*")), "something half-written is left"


@pytest.mark.parametrize(
    "scenario",
    [
        "loader workers",
        "automatic split",
        "accumulation",
        "everything drawn",
        "local gradients",
        "low rank",
        "texts",
    ],
)
def test_every_kind_of_run_resumes_to_the_same_end(tmp_path, data, untouched, scenario):
    work_dir = killed_and_resumed(tmp_path, sections(data, scenario), 8, "after step")
    assert_same_end(work_dir, untouched(scenario))


def test_a_run_killed_again_and_again_at_any_moment_ends_the_same(tmp_path, data, untouched):
    given = sections(data, "pictures")
    # A checkpoint after every step: most of the time something is being written.
    plain, _ = configs(tmp_path, {**given, "train": {**given["train"], "checkpoint_every": 1}})
    work_dir, log = tmp_path / "run", tmp_path / "log"
    delays, kills = random.Random(0), 0
    resume: list[str] = []
    for _ in range(4):
        process = start([plain, "--work-dir", work_dir, *resume], log)
        newest = max((int(p.stem[5:]) for p in work_dir.glob("iter_*.pth")), default=0)
        while process.is_alive() and not list(work_dir.glob(f"iter_{newest + 1}.pth")):
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.06))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        resume = ["--resume"]
    assert kills >= 3, log.read_text()
    assert run([plain, "--work-dir", work_dir, "--resume"], log) == 0, log.read_text()
    assert_same_end(work_dir, untouched("pictures"))


def test_the_scenarios_depend_on_what_a_resume_could_lose(tmp_path, data, untouched):
    given = sections(data, "pictures")
    calm, _ = configs(tmp_path, {**given, "data": {**given["data"], "augment": "none"}})
    assert run([calm, "--work-dir", tmp_path / "run"], tmp_path / "log") == 0
    ends = [weights(w, STEPS) for w in (tmp_path / "run", untouched("pictures"), untouched("accumulation"))]
    assert not same(ends[0], ends[1]) and not same(ends[1], ends[2])
    assert int(weights(untouched("automatic split"), STEPS)["layers.split"]) > 0


def test_resuming_does_not_read_the_batches_that_went_by(tmp_path, data):
    given = sections(data, "pictures")
    del given["data_root"]
    source = {"type": "image_folder", "root": str(image_folder(tmp_path / "images")), "verify": False}
    plain, _ = configs(tmp_path, {**given, "data": {**given["data"], "source": source}})
    arguments, log = [plain, "--work-dir", tmp_path / "run", "--cfg-options"], tmp_path / "log"
    assert run([*arguments, "train.max_steps=3"], log) == 0, log.read_text()
    # Pictures of the second and third batch no longer decode; the first is also read to measure memory.
    loader = build_experiment(load_config(plain)).train_loader
    batches = [{i % len(loader.dataset) for i in batch} for batch in islice(loader.batch_sampler, 4)]
    pictures = loader.dataset.source.inputs
    for index in (batches[1] | batches[2]) - batches[0] - batches[3]:
        pictures[index].write_bytes(pictures[index].read_bytes()[:-40])
    assert run([*arguments, "train.max_steps=4", "--resume"], log) == 0, log.read_text()
    assert weights(tmp_path / "run", 4)["step"] == 4
    assert run([*arguments, "train.max_steps=4"], log) == 2


def test_a_new_run_in_an_old_work_directory_is_not_mixed_with_it(tmp_path, data, untouched):
    given = sections(data, "pictures")
    longer = {**given, "train": {**given["train"], "max_steps": 15}}
    plain, _ = configs(tmp_path / "a", longer)
    work_dir, log = tmp_path / "run", tmp_path / "log"
    assert run([plain, "--work-dir", work_dir], log) == 0, log.read_text()
    plain, hooked = configs(tmp_path / "b", given, {"type": "KillHook", "step": 4, "moment": "after step"})
    assert run([hooked, "--work-dir", work_dir], log) == -signal.SIGKILL
    assert (work_dir / "previous" / "iter_15.pth").is_file()
    assert run([plain, "--work-dir", work_dir, "--resume"], log) == 0, log.read_text()
    assert "Load checkpoint from" in log.read_text() and "iter_3.pth" in log.read_text()
    ends = weights(work_dir, STEPS), weights(untouched("pictures"), STEPS)
    assert same(*ends)

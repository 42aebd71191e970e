"""Coach, then fade, as a configured run: two stages, inputs without labels, and resumes in either stage."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from kinds_of_labels import several, stsb
from running import forget, main, run, same, start, trained, weights, write_config
from safetensors.torch import load_file

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.exports import load_export
from mdpd_plugins.planning.fit import fit
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MDPDError
from mdpd_plugins.reporting.costs import planned_costs
from mdpd_plugins.reporting.history import read_record
from mdpd_plugins.training import build_experiment, export_work_dir, load_config
from mdpd_plugins.training.network import export_network
from mdpd_plugins.training.train import dry_run

COACH = {
    "data": {
        "source": {"type": "packaged", "name": "digits", "train_size": 40, "val_size": 24, "test_size": 24},
        "unlabelled": {"type": "rest", "size": 30},
        "eval_split": "test",
    },
    "distill": {"method": "mdpd_coach", "reduction": 4, "bottleneck": 8},
    "coach": {"max_epochs": 4, "batch_size": 16},
    "train": {"max_steps": 8, "val_every": 4, "checkpoint_every": 4, "keep": "best"},
}


@pytest.fixture(scope="module")
def coached(tmp_path_factory):
    """(config, work directory, summary)."""
    folder = tmp_path_factory.mktemp("coach")
    config = write_config(folder, **COACH)
    return config, folder / "run", trained(config, folder / "run")


def test_the_summary_and_the_card_say_who_taught_and_on_what(coached):
    _, work_dir, summary = coached
    coach = summary["coach"]
    assert coach["kind"] in ("ladder", "reader") and set(coach["scores"]) == {"ladder", "reader"}
    assert coach["scores"][coach["kind"]] == max(coach["scores"].values())
    assert (coach["labelled"], coach["unlabelled"]) == (40, 30) and sum(coach["answers"].values()) == 30
    assert 0 < coach["certainty"] <= 1 and 0 < coach["epochs"] <= 4
    assert "taught on 40 examples with labels and 30 without" in (work_dir / "export" / "README.md").read_text()
    assert summary["examples"]["splits"]["unlabelled"] == {"size": 30}


def test_the_export_is_a_plain_backbone_that_was_taught(coached):
    config, work_dir, summary = coached
    experiment = build_experiment(load_config(config))
    samples = [experiment.eval_loader.dataset[i] for i in range(24)]
    logits = load_export(work_dir / "export", "cpu").logits([image for image, _ in samples])
    labels = torch.stack([label for _, label in samples])
    assert float((logits.argmax(1) == labels).double().mean()) == summary["metrics"]["backbone/accuracy"]
    assert "side/accuracy" not in summary["metrics"] and summary["parameters"]["side"] == 0


def test_the_coach_learns_from_labels_alone_on_an_untouched_backbone(coached, tmp_path):
    """Each of its outputs is what its own checkpoint says beside the backbone that the run began with."""
    from safetensors.torch import load_file

    from mdpd_plugins.training.best import load_best

    config, work_dir, summary = coached
    options = {"distill.coach": "ladder", "coach.patience": None}
    alone = work_dir.parent / "ladder"
    trained(config, alone, **options)
    outputs = load_file(alone / "coach" / "outputs.safetensors")["outputs"]
    assert outputs.shape == (70, 10)
    ladder = build_experiment(load_config(alone / "coach" / "config.py"))
    load_best(ladder, alone / "coach")
    source = ladder.source
    inputs = ladder.adapter.transform()([source[i][0] for i in range(8)])
    temperature = json.loads((alone / "summary.json").read_text())["coach"]["temperature"]
    torch.testing.assert_close(ladder.distiller(inputs)["side"], outputs[:8] * temperature, rtol=1e-4, atol=1e-5)
    # No other temperature makes what it says of val likelier, with labels right in 25 of 26 cases (24 examples).
    said = [(ladder.distiller(batch["inputs"])["side"], batch["labels"]) for batch in ladder.val_loader]
    outputs_of_val, labels = (torch.cat(column).detach() for column in zip(*said, strict=True))

    def loss(factor):
        scaled = outputs_of_val / (temperature * factor)
        return torch.nn.functional.cross_entropy(scaled, labels, label_smoothing=1 / 26)

    assert loss(1.0) < min(loss(0.98), loss(1.02))
    # Without inputs that have no labels it is the same coach.
    data = {key: value for key, value in COACH["data"].items() if key != "unlabelled"}
    config = write_config(tmp_path, **{**COACH, "data": data})
    trained(config, work_dir.parent / "fewer", **options)
    fewer = load_file(work_dir.parent / "fewer" / "coach" / "outputs.safetensors")["outputs"]
    assert torch.equal(fewer, outputs[:40])


def test_a_reader_that_is_unsure_of_everything_teaches_as_surely_as_it_is_right(tmp_path):
    # scikit-learn's C of 0.1, the most regularised: ten probabilities that are all about the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdpd_plugins.training.coach.STRENGTHS", (0.001,))
        config = write_config(tmp_path, **COACH, optim={"scale": 1.0})
        coach = trained(config, tmp_path / "run", **{"distill.coach": "reader"})["coach"]
    assert coach["temperature"] < 0.1
    assert abs(coach["certainty"] - coach["scores"]["reader"]) < 0.2


def test_a_reader_learns_from_kept_views_of_pictures_too(tmp_path):
    from safetensors.torch import load_file

    found = {}
    for views in (1, 2):
        config = write_config(tmp_path / str(views), **COACH)
        options = {"distill.coach": "reader", "distill.cache_views": views, "data.augment": "crop"}
        summary = trained(config, tmp_path / str(views) / "run", **options)
        assert (summary["coach"]["labelled"], summary["coach"]["unlabelled"]) == (40, 30)
        found[views] = load_file(tmp_path / str(views) / "run" / "coach" / "outputs.safetensors")["outputs"]
    assert found[1].shape == found[2].shape == (70, 10) and not torch.allclose(found[1], found[2])


def test_a_run_resumed_in_either_stage_ends_as_one_that_nobody_touched(coached, tmp_path):
    config, work_dir, summary = coached
    coach_steps = sorted(int(p.stem[5:]) for p in (work_dir / "coach").glob("iter_*.pth"))
    for stage in ("first", "between", "second"):
        whole = tmp_path / stage
        shutil.copytree(work_dir, whole)
        for path in ("summary.json", "best_8.pth", "evaluations.json"):
            if stage != "second":
                (whole / path).unlink(missing_ok=True)
        if stage != "second":
            forget_all(whole)
        else:
            forget(whole, 8)
        if stage == "first":
            for name in ("coach.json", "outputs.safetensors"):
                (whole / "coach" / name).unlink()
            forget(whole / "coach", coach_steps[-1])
        shutil.rmtree(whole / "export")
        assert main([config, "--work-dir", whole, "--resume"]) == 0
        assert same(weights(whole, 8), weights(work_dir, 8)), stage
        found = json.loads((whole / "summary.json").read_text())
        assert found["metrics"] == summary["metrics"] and found["coach"] == summary["coach"]


WRITTEN_LAST = ("coach.json", "outputs.safetensors")
TOGETHER = {"coach": {"max_epochs": 2}}


def said_by(work_dir):
    return load_file(work_dir / "coach" / "outputs.safetensors")["outputs"]


def test_two_coaches_learn_as_each_would_alone_and_teach_their_mean(tmp_path):
    config = write_config(tmp_path, **{**COACH, **TOGETHER})
    runs = {
        coach: trained(config, tmp_path / coach, **{"distill.coach": coach})
        for coach in ("reader", "backbone", "reader+backbone")
    }
    both = runs["reader+backbone"]["coach"]
    assert torch.equal(
        said_by(tmp_path / "reader+backbone"), (said_by(tmp_path / "reader") + said_by(tmp_path / "backbone")) / 2
    )
    alone = {kind: runs[kind]["coach"]["scores"][kind] for kind in ("reader", "backbone")}
    assert {kind: both["scores"][kind] for kind in alone} == alone and set(both["scores"]) == set(runs)
    assert both["kept"] == runs["reader"]["coach"]["kept"] and both["together"]["kind"] == "backbone"
    assert (
        f"Coach: reader+backbone (accuracy {both['scores']['reader+backbone']:.4f}"
        in (tmp_path / "reader+backbone" / "export" / "README.md").read_text()
    )
    assert export_network(tmp_path / "reader+backbone", tmp_path / "kept", kind="torch", keep_side=True)  # the reader


@pytest.mark.parametrize(("coach", "stage"), [("ladder+backbone", "coach"), ("reader+backbone", "coach_2")])
def test_a_run_ended_while_either_of_two_coaches_learns_ends_as_one_that_nobody_touched(tmp_path, coach, stage):
    config = write_config(tmp_path, **{**COACH, **TOGETHER, "distill": {**COACH["distill"], "coach": coach}})
    summary, again = trained(config, tmp_path / "run"), tmp_path / "again"
    shutil.copytree(tmp_path / "run", again)
    for path in [again / "summary.json", again / "evaluations.json", *(again / "coach" / n for n in WRITTEN_LAST)]:
        path.unlink()
    forget_all(again)
    forget(again / stage, max(int(p.stem[5:]) for p in (again / stage).glob("iter_*.pth")))
    shutil.rmtree(again / "export")
    if stage == "coach":
        shutil.rmtree(again / "coach_2")
    assert main([config, "--work-dir", again, "--resume"]) == 0
    assert same(weights(again, 8), weights(tmp_path / "run", 8))
    found = json.loads((again / "summary.json").read_text())
    assert found["metrics"] == summary["metrics"] and found["coach"] == summary["coach"]


def test_two_backbones_have_seeds_of_their_own(tmp_path):
    config = write_config(tmp_path, **{**COACH, **TOGETHER})
    one, two = ("backbone", "backbone+backbone")
    for coach in (one, two):
        trained(config, tmp_path / coach, **{"distill.coach": coach})
    assert not torch.equal(said_by(tmp_path / one), said_by(tmp_path / two))


def forget_all(work_dir):
    for path in [*work_dir.glob("iter_*.pth"), *work_dir.glob("best_*.pth"), work_dir / "checkpoints.json"]:
        path.unlink(missing_ok=True)


def test_a_kill_while_the_coach_learns_costs_nothing(coached, tmp_path):
    """SIGKILL as soon as its first checkpoint is there."""
    import time

    config, work_dir, _ = coached
    process = start([config, "--work-dir", tmp_path / "run"], tmp_path / "log")
    while process.is_alive() and not list((tmp_path / "run" / "coach").glob("iter_*.pth")):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert run([config, "--work-dir", tmp_path / "run", "--resume"], tmp_path / "log") == 0
    assert same(weights(tmp_path / "run", 8), weights(work_dir, 8))


def test_a_run_exports_again_from_its_work_directory(coached, tmp_path):
    _, work_dir, _ = coached
    export_work_dir(work_dir, tmp_path / "again")
    picture = [torch.zeros(8, 8).numpy().astype("uint8")]
    from PIL import Image

    picture = [Image.fromarray(picture[0]).convert("RGB")]
    ours, theirs = (load_export(p, "cpu").logits(picture) for p in (tmp_path / "again", work_dir / "export"))
    assert torch.equal(ours, theirs)


def test_a_coach_of_other_settings_or_damaged_outputs_is_not_gone_on_from(coached, tmp_path):
    config, work_dir, _ = coached
    whole = tmp_path / "run"
    shutil.copytree(work_dir, whole)
    loaded = load_config(config, {"data.unlabelled.size": 20})
    loaded.work_dir = str(whole)
    from mdpd_plugins.training import train

    with pytest.raises(ConfigError, match="learned with other settings"):
        train(loaded, resume=True)
    path = whole / "coach" / "outputs.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    loaded = load_config(config)
    loaded.work_dir = str(whole)
    with pytest.raises(CheckpointError, match="missing, damaged, or of another run"):
        train(loaded, resume=True)
    (whole / "coach" / "coach.json").write_text("{}")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        train(loaded, resume=True)


@pytest.mark.parametrize("finished", [True, False], ids=["its answers", "its checkpoints"])
def test_what_another_runs_coach_left_is_refused_by_name(coached, tmp_path, capsys, finished):
    """All of the coach's files, of a run of the same settings and seed: only the name tells them apart."""
    config, work_dir, _ = coached
    other, mixed = tmp_path / "other", shutil.copytree(work_dir, tmp_path / "mixed")
    trained(config, other)
    shutil.rmtree(mixed / "coach")
    shutil.copytree(other / "coach", mixed / "coach")
    if not finished:
        (mixed / "coach" / "coach.json").unlink()
    forget(mixed, 8)
    capsys.readouterr()
    assert main([config, "--work-dir", mixed, "--resume"]) == 2
    own, others = (json.loads((folder / "run.json").read_text())["run"] for folder in (work_dir, other))
    said = capsys.readouterr().err
    assert f"was written by run {others}" in said and f"belongs to run {own}" in said
    assert ("coach.json" if finished else "iter_") in said
    if finished:
        with pytest.raises(CheckpointError, match="coach.json' was written by run"):
            export_work_dir(mixed, tmp_path / "out")


def test_a_changed_number_of_the_coach_is_found(coached, tmp_path):
    _, work_dir, _ = coached
    copy = shutil.copytree(work_dir, tmp_path / "run")
    path = copy / "coach" / "coach.json"
    path.write_text(path.read_text().replace('"labelled": 40', '"labelled": 41'))
    with pytest.raises(CheckpointError, match="is missing or damaged .it is not what was written"):
        export_work_dir(copy, tmp_path / "out")


@pytest.mark.parametrize("write", [several, stsb])
@pytest.mark.parametrize("coach", ["auto", "backbone"])
def test_several_labels_and_numbers_are_taught_too(tmp_path, write, coach):
    (tmp_path / "data").mkdir()
    (tmp_path / "more.txt").write_text("a red one\na cold one\nthe late plane\n")
    source = write(tmp_path / "data")
    more = {"type": "texts", "path": str(tmp_path / "more.txt")}
    if write is stsb:
        more = dict(source)  # pairs of sentences, whose labels are ignored
    config = write_config(
        tmp_path / "config",
        "hf-minilm",
        data={"source": source, "max_length": 16, "unlabelled": more},
        distill={"method": "mdpd_coach_low_rank", "coach": coach, "rank": 2},
        coach={"max_epochs": 2},
        train={"max_steps": 3},
    )
    summary = trained(config, tmp_path / "run")
    assert summary["coach"]["unlabelled"] == (16 if write is stsb else 3)
    assert set(summary["coach"]["scores"]) == ({"ladder", "reader"} if coach == "auto" else {"backbone"})
    assert summary["fading"]["keys_equal"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"distill": {"method": "mdpd"}}, "data.unlabelled is for a coach .*'mdpd' has none"),
        ({"distill": {"method": "mdpd_coach", "coach": "tutor"}}, "distill.coach='tutor'"),
        ({"distill": {"method": "mdpd_coach", "side": True}}, "learns first"),
        # What only one of the stages meets is found before either begins.
        ({"distill": {"method": "mdpd_coach", "reduction": 5}}, "reduction=5 does not fit"),
        ({"data": {"mix": "mixup"}}, "a coach's outputs are of single pictures"),
        ({"data": {"unlabelled": {"type": "images", "root": "nowhere"}}}, "nowhere does not exist"),
    ],
)
def test_wrong_inputs_leave_nothing_behind(tmp_path, sections, message):
    merged = {key: {**COACH[key], **sections.get(key, {})} for key in COACH}
    if "method" in sections.get("distill", {}):
        merged["distill"] = sections["distill"]
    path = write_config(tmp_path / "config", **merged)
    with pytest.raises(MDPDError, match=message):
        trained(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_methods_are_planned_and_compared_on_the_same_configuration(coached, capsys):
    """Inputs without labels are for coaches alone, and a step of any method is of the same size without them."""
    config, work_dir, _ = coached
    methods = ["norm_checkpointed", "mdpd", "mdpd_coach"]
    assert mdpd(["bench", str(config), "--plan", "--methods", *methods]) == 0
    rows = {row[0]: row[1:] for row in map(str.split, capsys.readouterr().out.splitlines()) if row}
    assert set(methods) <= rows.keys()
    steps = {method: rows[method][:6] for method in methods}
    assert steps["mdpd_coach"] == steps["norm_checkpointed"] != steps["mdpd"]
    assert float(rows["mdpd_coach"][6]) > float(rows["norm_checkpointed"][6])  # the coach's stage keeps features
    costs = planned_costs(read_record(work_dir))
    assert not costs.missing and {"full", "lora", "ladder"} <= costs.memory.keys()
    best, _ = fit(load_config(config), 10**9)
    assert best.options["distill.method"] == "mdpd_coach_low_rank"


def test_a_configuration_with_kept_views_is_planned_with_any_method(tmp_path):
    config = write_config(tmp_path, **{**COACH, "distill": {**COACH["distill"], "cache_views": 2}})
    options = {"data.augment": "crop"}
    found = {m: plan(load_config(config, {**options, "distill.method": m})) for m in ("mdpd_coach", "mdpd", "norm")}
    assert found["mdpd_coach"].first.features > 0 == found["mdpd"].features
    loaded = load_config(config, {**options, "distill.method": "mdpd"})
    loaded.data.unlabelled = {}
    with pytest.raises(ConfigError, match="cache_views=2 is of hidden states that are kept, and none are"):
        build_experiment(loaded)


@pytest.mark.parametrize("method", ["mdpd_coach", "ladder"])
def test_what_a_plan_and_a_dry_run_say_leaves_nothing_in_a_folder_of_features(tmp_path, method):
    folder = tmp_path / "features"
    distill = {**COACH["distill"], "method": method, "cache_folder": str(folder), "cache_dtype": "bfloat16"}
    sections = {**COACH, "distill": distill}
    if method == "ladder":
        sections["data"] = {**COACH["data"], "unlabelled": {}}
    config = write_config(tmp_path, **sections)
    found, ran = plan(load_config(config)), dry_run(load_config(config))
    assert ran["run"] == replace(found, first=None).run and not folder.exists()
    stage = found.first or found
    assert stage.features < 2**20 and stage.step.total > 0


def test_the_best_evaluation_is_chosen_on_val_and_reported_on_test(coached):
    config, work_dir, summary = coached
    experiment = build_experiment(load_config(config))
    assert len(experiment.parts.watched) == len(experiment.parts.evaluated) == 24
    watched = {image.tobytes() for image, _ in experiment.val_loader.dataset}
    evaluated = {image.tobytes() for image, _ in experiment.eval_loader.dataset}
    assert not watched & evaluated
    assert summary["eval_split"] == "test"

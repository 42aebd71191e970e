"""Checkpoints of a run on a pretrained backbone hold what was learned, and know the weights that they leave out."""

import json

import pytest
import torch
from running import forget, main, same, trained, weights, write_config
from small_zoo import BACKBONES, ONE_OF_EACH, randomise

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.storage.checkpoint import read_state_dict
from mdpd_plugins.files import sha256
from mdpd_plugins.training import build_experiment, load_config
from mdpd_plugins.training.checkpoints import read_run
from mdpd_plugins.training.finishing import export_work_dir

STEPS = 4


def pretrained(folder, key, seed=0):
    name, options = BACKBONES[key]
    adapter = build_backbone(name, pretrained=None, num_classes=10, **options)
    randomise(adapter.model, seed)
    adapter.export(folder)


def config_of(folder, key="hf-vit", **sections):
    """A config on a checkpoint that lies beside it."""
    name, options = BACKBONES[key]
    pretrained(folder / "checkpoint", key)
    backbone = {"name": name, "pretrained": str(folder / "checkpoint"), "options": {} if key[:2] == "hf" else options}
    train = {"max_steps": STEPS, "checkpoint_every": 2, **sections.pop("train", {})}
    dtype = sections.pop("dtype", "auto")
    return write_config(folder, key, backbone={**backbone, "dtype": dtype}, train=train, **sections)


def contents(folder):
    """All files but logs, which go on as long as the process does."""
    return {p: sha256(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".log"}


def exported(folder):
    (file,) = [p for p in folder.iterdir() if p.suffix in (".safetensors", ".pth")]
    return read_state_dict(file)


@pytest.mark.parametrize("key", ONE_OF_EACH)
@pytest.mark.parametrize("dtype, method", [("auto", "mdpd_low_rank"), ("bfloat16", "mdpd")])
def test_a_checkpoint_leaves_the_frozen_weights_out_and_a_resume_is_the_same_bit_for_bit(key, dtype, method, tmp_path):
    distill = {"reduction": 4, "bottleneck": 8, "method": method, "backbone_every": 1}
    config = config_of(tmp_path, key, dtype=dtype, distill=distill)
    trained(config, tmp_path / "whole")
    state = weights(tmp_path / "whole", STEPS)
    experiment = build_experiment(load_config(config))
    trains = {f"backbone.{k}" for k in (*experiment.distiller.trainable, *experiment.adapter.head_parameters())}
    assert {k for k in state if k.startswith("backbone.")} == trains
    assert {v.dtype for k, v in state.items() if k in trains} == {torch.float32}
    assert state["frozen"].shape == (32,)
    trained(config, tmp_path / "part")
    forget(tmp_path / "part", STEPS)
    assert main([config, "--work-dir", tmp_path / "part", "--resume"]) == 0
    assert same(weights(tmp_path / "part", STEPS), state)
    one, other = (exported(tmp_path / name / "export") for name in ("whole", "part"))
    assert same(one, other)
    assert {v.dtype for v in one.values() if v.is_floating_point()} == {torch.float32}
    export_work_dir(tmp_path / "whole", tmp_path / "again")
    assert same(exported(tmp_path / "again"), one)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for v in inner for t in tensors_in(v)]


@pytest.mark.parametrize("key", ONE_OF_EACH)
@pytest.mark.parametrize("dtype, method", [("auto", "mdpd_low_rank"), ("bfloat16", "mdpd")])
def test_a_checkpoint_holds_what_trains_and_its_two_moments_and_nothing_twice(key, dtype, method, tmp_path):
    distill = {"reduction": 4, "bottleneck": 8, "method": method, "backbone_every": 1}
    config = config_of(tmp_path, key, dtype=dtype, distill=distill)
    trained(config, tmp_path / "run")
    files = [tmp_path / "run" / f"{name}_{STEPS}.pth" for name in ("iter", "optimizer")]
    found = [tensors_in(torch.load(file, weights_only=True)) for file in files]
    for own in found:
        # A view would bring the whole tensor that it looks at along.
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in own)
        assert len({t.untyped_storage().data_ptr() for t in own if t.numel()}) == len([t for t in own if t.numel()])
    distiller = build_experiment(load_config(config)).distiller
    trains = sum(p.numel() for p in [*distiller.trainable.values(), *distiller.side_parameters()])
    # A float32 number for each that trains, and two for its moments; then what each tensor is called, and of the run.
    for file, own, size in zip(files, found, (4, 8), strict=True):
        assert size * trains <= file.stat().st_size < size * trains + 400 * len(own) + 20_000


def test_a_resume_alone_needs_the_optimisers_state_and_checks_it(tmp_path, capsys):
    config = config_of(tmp_path, train={"max_steps": 6, "checkpoint_every": 2})
    run = tmp_path / "run"
    trained(config, run)
    assert sorted(p.name for p in run.glob("*.pth")) == [f"{n}_{s}.pth" for n in ("iter", "optimizer") for s in (4, 6)]
    kept = (run / "optimizer_6.pth").read_bytes()
    for damaged in (None, kept[: len(kept) // 2], (run / "optimizer_4.pth").read_bytes()):
        (run / "optimizer_6.pth").unlink() if damaged is None else (run / "optimizer_6.pth").write_bytes(damaged)
        before = contents(run)
        capsys.readouterr()
        assert main([config, "--work-dir", run, "--resume", "--cfg-options", "train.max_steps=8"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "optimizer_6.pth' is missing, damaged, or of another run" in said and contents(run) == before
    export_work_dir(run, tmp_path / "again")  # what was learned is whole
    assert same(exported(tmp_path / "again"), exported(run / "export"))
    (run / "optimizer_6.pth").write_bytes(kept)
    assert main([config, "--work-dir", run, "--resume", "--cfg-options", "train.max_steps=8"]) == 0
    assert sorted(p.name for p in run.glob("*.pth")) == [f"{n}_{s}.pth" for n in ("iter", "optimizer") for s in (6, 8)]
    trained(config, run)  # anew: what was there is set aside
    assert sorted(p.name for p in (run / "previous").glob("*.pth"))[-1] == "optimizer_8.pth"


def test_the_best_evaluations_file_is_as_small_and_is_what_is_exported(tmp_path):
    config = config_of(tmp_path, train={"keep": "best", "val_every": 2})
    trained(config, tmp_path / "run")
    (best,) = (tmp_path / "run").glob("best_*.pth")
    state = torch.load(best, weights_only=True)
    assert "frozen" in state and "backbone.classifier.weight" in state
    assert not any("intermediate" in k or "attention" in k or "mlp" in k for k in state if k.startswith("backbone."))


@pytest.mark.parametrize("key", ONE_OF_EACH)
def test_weights_that_changed_since_training_began_are_refused_before_anything_is(key, tmp_path, capsys):
    config = config_of(tmp_path, key, train={"keep": "best"})
    trained(config, tmp_path / "run")
    forget(tmp_path / "run", STEPS)
    pretrained(tmp_path / "checkpoint", key, seed=1)
    before = contents(tmp_path / "run")
    capsys.readouterr()
    assert main([config, "--work-dir", tmp_path / "run", "--resume"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "iter_2.pth' was learned beside other frozen weights than" in said and "Put back what was trained on" in said
    with pytest.raises(Exception, match="was learned beside other frozen weights"):
        export_work_dir(tmp_path / "run", tmp_path / "out")
    assert contents(tmp_path / "run") == before and not (tmp_path / "out").exists()
    pretrained(tmp_path / "checkpoint", key)  # put back
    assert main([config, "--work-dir", tmp_path / "run", "--resume"]) == 0


def test_another_type_is_other_weights(tmp_path, capsys):
    config = config_of(tmp_path)
    trained(config, tmp_path / "run")
    forget(tmp_path / "run", STEPS)
    options = ["--cfg-options", "backbone.dtype=bfloat16"]
    assert main([config, "--work-dir", tmp_path / "run", "--resume", *options]) == 2
    assert "is held in another type" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_of_the_old_form_with_all_weights_still_resumes(tmp_path):
    config = config_of(tmp_path)
    trained(config, tmp_path / "run")
    wanted = weights(tmp_path / "run", STEPS)
    forget(tmp_path / "run", STEPS)
    path = tmp_path / "run" / "iter_2.pth"
    old, experiment = torch.load(path, weights_only=True), build_experiment(load_config(config))
    own = experiment.distiller.state_dict()
    old["state_dict"] = {**own, **{k: v for k, v in old["state_dict"].items() if k in own}}
    torch.save(old, path)
    (tmp_path / "run" / "checkpoints.json").write_text(json.dumps({path.name: sha256(path)}))
    assert main([config, "--work-dir", tmp_path / "run", "--resume"]) == 0
    assert same(weights(tmp_path / "run", STEPS), wanted)


def test_random_weights_are_in_no_other_file_and_stay_in_the_checkpoint(tmp_path):
    trained(write_config(tmp_path, train={"max_steps": 2}), tmp_path / "run")
    state, experiment = weights(tmp_path / "run", 2), build_experiment(load_config(tmp_path / "config.py"))
    assert state.keys() == experiment.distiller.state_dict().keys()


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_moving_average_is_resumed_from_a_small_checkpoint(dtype, tmp_path):
    config = config_of(tmp_path, dtype=dtype, train={"ema": 0.9})
    trained(config, tmp_path / "whole")
    trained(config, tmp_path / "part")
    forget(tmp_path / "part", STEPS)
    assert main([config, "--work-dir", tmp_path / "part", "--resume"]) == 0
    assert same(weights(tmp_path / "part", STEPS), weights(tmp_path / "whole", STEPS))
    assert same(exported(tmp_path / "part" / "export"), exported(tmp_path / "whole" / "export"))


def test_another_hook_of_mmengines_writes_whole_files_under_its_own_names(tmp_path):
    given = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "filename_tmpl": "step_{}.pth"}
    hooks = [given, {**given, "out_dir": str(tmp_path / "elsewhere"), "filename_tmpl": "iter_{}.pth"}]
    config = config_of(tmp_path, custom_hooks=hooks)
    trained(config, tmp_path / "run")
    whole = torch.load(tmp_path / "run" / f"step_{STEPS}.pth", weights_only=True)
    assert same(whole["state_dict"], weights(tmp_path / "run", STEPS)) and "optimizer" in whole
    assert "optimizer" in read_run(tmp_path / "elsewhere" / "run" / f"iter_{STEPS}.pth")
    options = ["--cfg-options", f"train.max_steps={STEPS + 2}"]
    assert main([config, "--work-dir", tmp_path / "run", "--resume", *options]) == 0

"""`mdpd report`: the page that a run gets, opened in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from browser import rendered
from language import language_config
from picture_texts import config_of, picture_table
from running import WORDS, forget, image_folder, trained, weights, write_config

from mdpd_plugins.cli.main import main
from mdpd_plugins.training import build_experiment, load_config

STEPS = {"max_steps": 12, "val_every": 4, "log_every": 2, "checkpoint_every": 6}
SECTIONS = ["Overview", "Both paths", "Loss terms", "Attention of both paths", "Drift of the norm parameters"]
SECTIONS += ["Memory against the baselines", "Latency", "Examples with predictions", "Classes", "Settings"]


def numbers_table(path: Path) -> Path:
    """Texts that a page must not take for markup, each with a number."""
    lines = [f"{WORDS[i % 8]} <script>alert({i})</script> <b>&amp; {WORDS[i % 5]},{i / 40}" for i in range(44)]
    path.write_text("\n".join(["text,value", *lines]) + "\n")
    return path


def several_labels_table(path: Path) -> Path:
    """Texts with one to three labels."""
    lines = [f"{WORDS[i % 8]} {WORDS[i % 5]},{'|'.join('abc'[: 1 + i % 3])}" for i in range(44)]
    path.write_text("\n".join(["text,value", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What `mdpd bench --json` writes, for pages whose costs need not be planned."""
    folder = tmp_path_factory.mktemp("bench")
    asked = ["--methods", "norm", "linear", "--rounds", "1", "--json", str(folder / "bench.json")]
    assert main(["bench", str(write_config(folder)), *asked]) == 0
    return folder / "bench.json"


@pytest.fixture(scope="module")
def pages(tmp_path_factory, measured):
    """Name -> work directory with its page, of runs that differ in what there is to show."""
    folder = tmp_path_factory.mktemp("runs")

    def texts(path, kind):
        columns = {"text_column": "text", "label_column": "value", "label_kind": kind}
        return {"source": {"type": "table", "path": str(path), **columns}}

    several = texts(several_labels_table(folder / "several.csv"), "multi")
    several["source"]["label_separator"] = "|"
    runs = {
        "automatic": ("hf-vit", {"distill": {"shallow": "auto", "deep": "auto"}}),
        "numbers": ("hf-minilm", {"data": texts(numbers_table(folder / "numbers.csv"), "float")}),
        "several": ("hf-minilm", {"data": several, "distill": {"method": "lora"}}),
        "windows": ("mm-swin", {"data_root": str(image_folder(folder / "pictures"))}),
    }
    written = {name: write_config(folder / "configs" / name, kind, **own) for name, (kind, own) in runs.items()}
    table = picture_table(folder / "table")
    written["answers"] = config_of(folder / "configs" / "answers", "pair", table)
    written["captions"] = config_of(folder / "configs" / "captions", "pair of captions", table)
    written["language"] = language_config(folder / "configs" / "language")
    for name, config in written.items():
        config.write_text(config.read_text() + f"\ntrain = {STEPS}\n")
        trained(config, folder / name)
    # A run that goes on: no summary yet, and its newest checkpoint is not its last.
    shutil.copytree(folder / "automatic", folder / "going")
    forget(folder / "going", 12)
    for name in [*written, "going"]:
        costs = [] if name == "automatic" else ["--bench", str(measured)]
        assert main(["report", str(folder / name), *costs]) == 0
    return {name: folder / name for name in [*written, "going"]}


@pytest.fixture(scope="module")
def wide(pages):
    seen = rendered([folder / "report.html" for folder in pages.values()], 1200)
    return dict(zip(pages, seen, strict=True))


def test_every_section_is_there_and_every_picture_has_a_size(wide):
    for name, page in wide.items():
        assert page["headings"][1:] == SECTIONS, name
        assert len(page["links"]) == len(SECTIONS) and all(leads for _, leads in page["links"])
        assert page["scripts"] == 0
        assert len(page["ids"]) == len(set(page["ids"]))
        for alt, own, width, height in page["images"]:
            assert alt and own > 0 and width > 0 and height > 0, (name, alt)
        for label, width, height, paths, texts in page["charts"]:
            assert label and width > 200 and height > 50 and paths > 3 and texts, (name, label)


def test_it_fits_a_telephone_and_its_charts_can_be_read_there(pages, wide):
    for page in rendered([folder / "report.html" for folder in pages.values()], 375):
        assert page["overflow"] <= 0
        assert page["headings"][1:] == SECTIONS
        assert page["narrow"] >= 8


def test_it_follows_the_dark_scheme(pages, wide):
    (page,) = rendered([pages["automatic"] / "report.html"], 1200, dark=True)
    bright = wide["automatic"]
    assert sum(map(int, re.findall(r"\d+", page["background"])[:3])) < 150
    assert sum(map(int, re.findall(r"\d+", page["foreground"])[:3])) > 600
    assert sum(map(int, re.findall(r"\d+", bright["background"])[:3])) > 700
    assert sum(map(int, re.findall(r"\d+", bright["foreground"])[:3])) < 200


class References(HTMLParser):
    """What a page would load or link to."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "xlink:href", "data") and v]
        self.found += [url for k, v in attrs if k == "style" and v for url in re.findall(r"url\(([^)]*)\)", v)]


def test_it_needs_no_file_and_no_network(pages):
    for folder in pages.values():
        text = (folder / "report.html").read_text("utf-8")
        references = References()
        references.feed(text)
        assert references.found and all(r.startswith(("#", "data:image/png;base64,")) for r in references.found)
        assert "default-src 'none'" in text and "@import" not in text and "<link" not in text


def test_curves_of_both_paths_and_of_every_loss_term(wide):
    labels = [label for label, *_ in wide["automatic"]["charts"]]
    assert any(
        label.startswith("accuracy over 12 steps: backbone from ") and "; side from " in label for label in labels
    )
    terms = {"side/task", "side/imitation_0", "side/imitation_1", "side/imitation_2", "side/generation_2"}
    terms |= {"backbone/task", "backbone/distillation"}
    drawn = " ".join(labels)
    assert {term for term in terms if f"{term} from" not in drawn} == set()


def test_when_the_backbone_catches_up_is_said_as_the_log_has_it(pages, wide):
    (log,) = pages["automatic"].glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [r["step"] for r in rows if "side/accuracy" in r and r["backbone/accuracy"] >= r["side/accuracy"]]
    text = wide["automatic"]["text"]
    said = f"catches up with the side network at step {steps[0]}," if steps else "has not caught up with the side"
    assert said in text
    assert "lora trains no side network" in wide["several"]["text"]
    paths = json.loads((pages["automatic"] / "summary.json").read_text())["paths"]
    assert f"is right on {paths['mean']:.4f} of the examples, at least one path on {paths['either']:.4f}" in text
    for name in ("numbers", "going"):
        assert "is right on" not in wide[name]["text"]


def test_attention_and_the_split_that_the_checkpoint_holds(pages, wide):
    split = int(weights(pages["automatic"], 12)["layers.split"])
    page = wide["automatic"]
    shallow, deep = ([str(i) for i in part] for part in (range(split), range(split, 3)))
    plural = {False: "layer ", True: "layers "}
    assert f"imitated at {plural[len(shallow) > 1]}{', '.join(shallow)} and generated at" in page["text"]
    assert f"generated at {plural[len(deep) > 1]}{', '.join(deep)}; the split was measured" in page["text"]
    maps = [alt for alt, *_ in page["images"] if alt.startswith("Attention of the ")]
    assert len(maps) == 2 * 2 * 3 and len(set(maps)) == len(maps)
    assert any(label.startswith("Agreement per layer: layer 0: ") for label, *_ in page["charts"])
    assert "computes no attention over all its tokens" in wide["windows"]["text"]
    alone = [alt for alt, *_ in wide["several"]["images"]]
    assert alone and all("of the backbone" in alt for alt in alone)


def test_drift_is_that_of_the_checkpoint_from_the_fresh_backbone(pages, wide):
    experiment = build_experiment(load_config(pages["automatic"] / "config.py"))
    state = weights(pages["automatic"], 12)
    start, now = {}, {}
    for key, parameter in experiment.adapter.norm_parameters().items():
        layer = next((p for p in ("0", "1", "2") if f"layers.{p}." in key), "after the blocks")
        start.setdefault(layer, []).append(parameter.detach().flatten())
        now.setdefault(layer, []).append(state[f"backbone.{key}"].flatten())
    (label,) = [label for label, *_ in wide["automatic"]["charts"] if label.startswith("Relative change per layer")]
    said = dict(part.split(": ") for part in label.partition(": ")[2].split(", "))
    assert set(said) == {"0", "1", "2", "after the blocks"}
    for layer, value in said.items():
        before, after = torch.cat(start[layer]), torch.cat(now[layer])
        assert float(value) > 0
        assert float(value) == pytest.approx(float((after - before).norm() / before.norm()), rel=0.01)
    assert "None has moved: lora trains none of them." in wide["several"]["text"]


def test_low_rank_updates_move_linear_layers_by_what_the_checkpoint_holds(pages, wide):
    state = weights(pages["several"], 12)
    changes, lengths = {}, {}
    for key, down in state.items():
        if ".lora_A." in key:
            place = key.partition(".lora_A.")[0]
            layer = re.search(r"layer\.(\d+)\.", key)[1]
            update = 2 * state[f"{place}.lora_B.default.weight"] @ down
            changes[layer] = changes.get(layer, 0) + float(update.square().sum())
            lengths[layer] = lengths.get(layer, 0) + float(state[f"{place}.base_layer.weight"].square().sum())
    (label,) = [label for label, *_ in wide["several"]["charts"] if label.startswith("Change of updated weights")]
    said = dict(part.split(": ") for part in label.partition(": ")[2].split(", "))
    assert set(said) == set(changes) and len(said) > 1
    for layer, value in said.items():
        assert float(value) > 0
        assert float(value) == pytest.approx((changes[layer] / lengths[layer]) ** 0.5, rel=0.02)
    assert not any(label.startswith("Change of updated weights") for label, *_ in wide["automatic"]["charts"])


def test_memory_is_the_runs_own_beside_planned_baselines(pages, wide):
    own = json.loads((pages["automatic"] / "summary.json").read_text())["memory"]["total"]
    (label,) = [label for label, *_ in wide["automatic"]["charts"] if label.startswith("Training state")]
    said = dict(part.split(": ") for part in label.partition(": ")[2].split(", "))
    baselines = {"full", "lora", "lora_checkpointed", "norm", "norm_checkpointed", "ladder"}
    assert set(said) == baselines | {"this run (mdpd)"}
    assert float(said["this run (mdpd)"]) == pytest.approx(own / 2**20, abs=0.006)
    assert float(said["full"]) > float(said["norm"]) > float(said["norm_checkpointed"]) > 0


def test_a_benchmark_gives_memory_time_and_latency_instead(wide, measured):
    rows = {row["method"]: row for row in json.loads(measured.read_text())["results"]}
    page = wide["numbers"]
    said = {label.partition(",")[0]: label for label, *_ in page["charts"] if " frozen" in label or "plain" in label}
    assert set(said) == {"Training state", "Inference latency"}
    for method, row in rows.items():
        assert f"{method}: {row['training_state_bytes'] / 2**20:,.2f}" in said["Training state"]
        assert f"{method}: {row['inference_ratio_to_plain']:,.2f}" in said["Inference latency"]
    assert "Measured by mdpd bench" in page["text"] and "lora" not in said["Training state"]


def test_examples_come_wrong_ones_first_with_both_predictions(wide):
    text = wide["automatic"]["text"].partition("Examples with predictions")[2]
    verdicts = re.findall(r"^backbone\n+(.+)$", text, re.MULTILINE)
    right = [verdict.endswith("✓ right") for verdict in verdicts]
    assert len(verdicts) == 16 and right == sorted(right)
    assert len(re.findall(r"^side\n+\d 0\.\d\d . (?:right|wrong)$", text, re.MULTILINE)) == 16
    assert int(re.search(r"(\d+) by the backbone", text)[1]) == right.count(False)
    errors = [abs(float(e)) for e in re.findall(r"^backbone\n+\S+ \(error (\S+)\)", wide["numbers"]["text"], re.M)]
    assert len(errors) > 2 and errors == sorted(errors, reverse=True)
    assert re.search(r"label\na(, b)?(, c)?\n", wide["several"]["text"])
    assert len([alt for alt, *_ in wide["windows"]["images"] if alt.startswith("An example")]) >= 3


def test_scores_of_each_class_and_confusions_are_those_of_the_summary(pages, wide):
    summary = json.loads((pages["automatic"] / "summary.json").read_text())
    text = wide["automatic"]["text"].rpartition("Settings")[0].rpartition("Classes")[2]
    assert "What is taken for what" in text
    for row in summary["by_class"]["classes"]:
        assert re.search(rf"^{row['name']}\s+{row['count']}\s+{row['precision']:.3f}\s+{row['recall']:.3f}", text, re.M)
    several = wide["several"]["text"].rpartition("Settings")[0].rpartition("Classes")[2]
    assert "F1" in several and "What is taken for what" not in several
    assert "labels are no classes" in wide["numbers"]["text"]
    assert "known once the run has finished" in wide["going"]["text"]


def test_words_stand_beside_the_attention_of_texts(wide):
    shown = re.findall(r"Its tokens, in the order of rows and columns: (.+)", wide["numbers"]["text"])
    assert len(shown) == 2 and shown[0].startswith("0\xa0[CLS], 1") and shown[0].endswith("[SEP]")
    assert any(word in shown[0] for word in WORDS)
    assert "Its tokens" not in wide["automatic"]["text"]


def test_texts_stay_texts(pages, wide):
    assert "<script>alert(" in wide["numbers"]["text"]
    assert "<script>" not in (pages["numbers"] / "report.html").read_text("utf-8")


def test_a_run_that_goes_on_says_so(wide):
    assert "Not finished: step 6 of 12" in wide["going"]["text"]
    assert "measured when a run ends, and this one has not" in wide["going"]["text"]
    assert "Finished after 12 steps" in wide["automatic"]["text"]


def test_the_same_run_gives_the_same_page_and_nothing_else_is_touched(pages, measured, tmp_path):
    folder = pages["numbers"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["report", str(folder), "--bench", str(measured), "--out", str(tmp_path / "page.html")]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (tmp_path / "page.html").read_bytes() == before[folder / "report.html"]


def test_two_towers_show_pictures_with_their_texts_and_the_layers_of_both(wide):
    answers, captions = wide["answers"], wide["captions"]
    examples = answers["text"].partition("Examples with predictions")[2]
    verdicts = re.findall(r"^(which colour is it|tell me .*)\n+label\n(red|green|blue)\n", examples, re.MULTILINE)
    assert len(verdicts) == len([alt for alt, *_ in answers["images"] if alt.startswith("An example")]) == 8
    for page, layers in ((answers, 3 + 3), (captions, 3 + 2)):
        (agreement,) = [label for label, *_ in page["charts"] if label.startswith("Agreement per layer")]
        assert len(agreement.split(", ")) == layers
    assert any(label.startswith("recall at 1 over 12 steps: backbone from") for label, *_ in captions["charts"])


def test_a_language_model_catches_up_where_its_perplexity_is_no_higher(pages, wide):
    (log,) = pages["language"].glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [r["step"] for r in rows if "side/nll" in r and r["backbone/perplexity"] <= r["side/perplexity"]]
    assert f"catches up with the side network at step {steps[0]}," in wide["language"]["text"]
    for name in ("captions", "language"):
        assert "This task has no prediction of each example by itself" in wide[name]["text"]

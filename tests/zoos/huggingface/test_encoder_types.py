"""The huggingface zoo finds bare encoders by a rule that it reads off the installed transformers' source."""

import json

import pytest

from mdpd_plugins.registry import load_catalogue
from mdpd_plugins.zoos.huggingface.encoder_types import encoder_types, read_encoder_types

TABLES = """
MODEL_MAPPING_NAMES = OrderedDict(
    [
        ("pixels", "PixelsModel"),
        ("words", ("WordsModel", "WordsOther")),
        ("derived", "DerivedModel"),
        ("classified", "PixelsModel"),
        ("two-inputs", "TwoInputsModel"),
        ("required", "RequiredModel"),
        ("stacks", "StacksModel"),
        ("nested", "NestedModel"),
        ("video", "VideoModel"),
        ("sound", "SoundModel"),
        ("pooled", "PooledModel"),
        ("nowhere", "NowhereModel"),
    ]
)
MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES = OrderedDict([("classified", "C")])
"""
TYPES = ("pixels", "words", "derived", "classified", "two-inputs", "required", "stacks", "nested", "video", "sound")
CONFIGURATIONS = "CONFIG_MAPPING_NAMES = OrderedDict([" + ", ".join(
    f'("{t}", "{"NestedConfig" if t == "nested" else "PlainConfig"}")' for t in (*TYPES, "pooled", "nowhere")
)
OUTPUTS = """
class BaseModelOutput(ModelOutput):
    last_hidden_state: torch.FloatTensor | None = None

class Seq2SeqModelOutput(ModelOutput):
    last_hidden_state: torch.FloatTensor | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None

class PooledOutput(ModelOutput):
    pooler_output: torch.FloatTensor | None = None
"""
CONFIGS = """
class PlainConfig(PreTrainedConfig):
    model_type = "plain"

class NestedConfig(PreTrainedConfig):
    sub_configs_defaults = {
        "vision_config": VisionConfig,
    }
"""
MODELS = """
class PixelsPreTrainedModel(PreTrainedModel):
    input_modalities = ("image",)

class PixelsModel(PixelsPreTrainedModel):
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,  # a comment
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | OwnOutput:
        pass

class OwnOutput(BaseModelOutput):
    more: int = 0

class WordsModel(PreTrainedModel):
    def forward(self, input_ids=None, attention_mask: Tensor | None = None) -> BaseModelOutput:
        pass

class DerivedModel(WordsModel):
    pass

class TwoInputsModel(PreTrainedModel):
    def forward(self, input_ids=None, pixel_values=None) -> BaseModelOutput:
        pass

class RequiredModel(PreTrainedModel):
    def forward(self, pixel_values, prompts) -> BaseModelOutput:
        pass

class StacksModel(PreTrainedModel):
    def forward(self, input_ids=None) -> tuple | Seq2SeqModelOutput:
        pass

class NestedModel(PreTrainedModel):
    def forward(self, pixel_values) -> BaseModelOutput:
        pass

class VideoModel(PreTrainedModel):
    input_modalities = "video"

    def forward(self, pixel_values) -> BaseModelOutput:
        pass

class SoundModel(PreTrainedModel):
    input_modalities = ("audio", "text")

    def forward(self, input_ids) -> BaseModelOutput:
        pass

class PooledModel(PreTrainedModel):
    def forward(self, input_ids) -> PooledOutput:
        pass
"""


def test_the_rule_on_a_small_library(tmp_path):
    auto, toy = tmp_path / "models" / "auto", tmp_path / "models" / "toy"
    auto.mkdir(parents=True)
    toy.mkdir()
    (auto / "modeling_auto.py").write_text(TABLES)
    (auto / "auto_mappings.py").write_text(CONFIGURATIONS + "])")
    (tmp_path / "modeling_outputs.py").write_text(OUTPUTS)
    (toy / "configuration_toy.py").write_text(CONFIGS)
    (toy / "modeling_toy.py").write_text(MODELS)
    assert read_encoder_types(tmp_path) == {"derived": "text", "pixels": "image", "words": "text"}


def test_bare_encoders_of_the_installed_transformers_are_listed_and_classifiers_are_not_among_them():
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    found = encoder_types()
    assert set(found) <= set(auto.MODEL_MAPPING_NAMES)
    assert not set(found) & set(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    assert not set(found) & set(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    known = {"dinov3_vit": "image", "dinov3_convnext": "image", "vit_mae": "image", "vitdet": "image"}
    known |= {"clip_vision_model": "image", "siglip_vision_model": "image", "siglip2_vision_model": "image"}
    known |= {"clip_text_model": "text", "bert-generation": "text", "granite": "text", "mamba": "text"}
    assert known.items() <= found.items()
    # Sound, video, two towers, two stacks, a detector, and an output without hidden states.
    assert not {"hubert", "videomae", "clip", "pegasus", "detr", "dpr"} & set(found)
    specs = {r.name: r.spec for r in load_catalogue().select("huggingface")}
    for model_type, reads in found.items():
        spec = specs[f"huggingface/{model_type}"]
        assert (spec.family, spec.modality) == (model_type, reads)


def test_what_the_rule_finds_is_what_the_classes_say():
    """Held against the live classes of a few types, one of each kind: the source was read rightly."""
    transformers = pytest.importorskip("transformers")
    for model_type in ("dinov3_vit", "clip_text_model", "granite", "siglip2_vision_model"):
        model = transformers.AutoModel._model_mapping[type(transformers.AutoConfig.for_model(model_type))]
        assert model.main_input_name == {"image": "pixel_values", "text": "input_ids"}[encoder_types()[model_type]]


def test_a_cache_of_another_shape_is_not_believed(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = encoder_types()
    file = tmp_path / "mdpd" / "transformers-encoders.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "value": {"vit": "sound"}}))
    assert encoder_types() == found

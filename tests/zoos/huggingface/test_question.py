"""ViLT: words and patches in one sequence. What holds of every backbone is tested with all others, as "hf-vilt"."""

import numpy as np
import small_zoo
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForVisualQuestionAnswering, ViltForQuestionAnswering

from mdpd_plugins.adapters import adapt
from mdpd_plugins.zoos.huggingface.question import QuestionAdapter


def test_a_forward_is_the_same_every_time_and_what_the_model_answers_whatever_the_order_of_patches():
    adapter = small_zoo.small("hf-vilt")
    inputs = small_zoo.inputs_of(adapter)
    text = {k: v for k, v in inputs.items() if k != "image"}
    draw, state = torch.multinomial, torch.get_rng_state()
    with torch.no_grad():
        plain = adapter.forward(inputs)
        torch.manual_seed(5)
        assert torch.equal(adapter.forward(inputs), plain)
        theirs = [adapter.model(pixel_values=inputs["image"], **text).logits for _ in range(2)]
    # Its own forward shuffles patches, which the last bits show and nothing else.
    for logits in theirs:
        torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    assert torch.multinomial is draw
    torch.set_rng_state(state)


def test_other_draws_inside_stay_random():
    adapter = small_zoo.small("hf-vilt")
    taken = []

    def draw(*_):
        torch.manual_seed(3)
        taken.append(torch.multinomial(torch.ones(50), 5))

    handle = adapter.blocks()[0].register_forward_hook(draw)
    with torch.no_grad():
        adapter.forward(small_zoo.inputs_of(adapter))
    handle.remove()
    torch.manual_seed(3)
    assert torch.equal(taken[0], torch.multinomial(torch.ones(50), 5))


def test_hidden_states_hold_patches_in_the_pictures_order():
    adapter = small_zoo.small("hf-vilt")
    inputs = small_zoo.inputs_of(adapter)
    words = inputs["input_ids"].shape[1]
    # One patch of the second row is other: its token differs and no other patch's does, before attention mixes them.
    other = {**inputs, "image": inputs["image"].clone()}
    other["image"][:, :, 8:16, 16:24] += 1
    stems = []
    for given in (inputs, other):
        with torch.no_grad(), adapter.capture() as seen:
            adapter.forward(given)
        stems.append(seen.stems[0])
    different = (stems[0] != stems[1]).any(-1)[0].nonzero().flatten().tolist()
    assert different == [words + 1 + 4 * 1 + 2]


def test_the_mask_covers_words_and_patches():
    adapter = small_zoo.small("hf-vilt")
    inputs = small_zoo.inputs_of(adapter)
    words = inputs["attention_mask"].bool()
    with torch.no_grad(), adapter.capture(attention=True) as seen:
        adapter.forward(inputs)
    mask = adapter.attention_mask(inputs)
    assert mask.shape == seen.hidden[0].shape[:2] == (4, words.shape[1] + 1 + 16)
    assert torch.equal(mask[:, : words.shape[1]], words) and mask[:, words.shape[1] :].all()
    # Nobody attends to padding, and everything else is attended to.
    assert torch.equal((seen.attention[0] > 1e-9).any(1).any(1), mask)
    assert seen.layouts[0].grid is None and seen.layouts[0].prefix == 0


def test_padding_of_the_question_has_no_influence():
    adapter = small_zoo.small("hf-vilt")
    inputs = small_zoo.inputs_of(adapter)
    padding = inputs["attention_mask"] == 0
    other = {**inputs, "input_ids": torch.where(padding, 777, inputs["input_ids"])}
    assert padding.any()
    with torch.no_grad():
        assert torch.equal(adapter.forward(other), adapter.forward(inputs))


def test_pictures_of_another_size_are_read():
    adapter = small_zoo.small("hf-vilt")
    inputs = small_zoo.inputs_of(adapter)
    wide = {**inputs, "image": torch.randn(4, 3, 24, 48, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad(), adapter.capture() as seen:
        assert adapter.forward(wide).shape == (4, 5)
    assert adapter.attention_mask(wide).shape == seen.hidden[0].shape[:2]


def test_transformers_reads_the_export_with_its_processor_and_answers_alike(tmp_path):

    adapter = small_zoo.small("hf-vilt")
    adapter.set_labels(small_zoo.CLASSES)
    inputs = small_zoo.inputs_of(adapter)
    folder = adapter.export(tmp_path / "export")
    model = AutoModelForVisualQuestionAnswering.from_pretrained(folder).eval()
    assert isinstance(model, ViltForQuestionAnswering) and model.config.id2label[4] == "e"
    again = adapt(model)
    assert isinstance(again, QuestionAdapter)
    with torch.no_grad():
        assert torch.equal(again.forward(inputs), adapter.forward(inputs))
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    prepared = adapter.image_transform()([picture])["image"]
    assert prepared.shape == (1, 3, 32, 32)
    assert torch.equal(processor(picture, return_tensors="pt")["pixel_values"], prepared)

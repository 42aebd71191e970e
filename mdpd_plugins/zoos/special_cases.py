"""The architectures that needed code of their own, with the reason: read by docs/coverage.md."""

SPECIAL_CASES = {
    "huggingface: t5, umt5, mt5": "the configuration no longer names the token that a decoder starts with",
    "huggingface: bart, mbart, mvp, plbart": "classify by the last end-of-text token, so example texts end in one",
    "huggingface: imagegpt": "reads images as the numbers of its colours",
    "huggingface: siglip2": "reads images cut into patches, with the grid they came from",
    "huggingface: xlm, flaubert": "make a cache of keys and values unasked, which grows as a block runs again",
    "huggingface: pp_lcnet": "returns its logits under another name",
    "huggingface: vit_mae": "hides and shuffles patches at random: its encoder is given an order, and hides none",
    "mmpretrain: SparK": "its sparse encoders answer inside SparK only: their dense base class takes the weights",
    "mmpretrain: RepLKNet-31B, SwinV2 for ImageNet-21k": "mmengine cannot read their configs as MMPretrain ships them",
    "open_clip: CoCa": "its attention pooler is as wide as the output, which its heads must divide: one head; a class "
    "token stands behind the padding of its texts; its decoder's projection is left without values",
}

__all__ = ["SPECIAL_CASES"]

"""The architectures that needed code of their own, with the reason: read by docs/coverage.md."""

SPECIAL_CASES = {
    "huggingface: t5, umt5, mt5": "the configuration no longer names the token that a decoder starts with",
    "huggingface: bart, mbart, mvp, plbart": "classify by the last end-of-text token, so example texts end in one",
    "huggingface: pp_lcnet": "returns its logits under another name",
    "open_clip: CoCa": "its attention pooler is as wide as the output, which its heads must divide: one head",
}

__all__ = ["SPECIAL_CASES"]

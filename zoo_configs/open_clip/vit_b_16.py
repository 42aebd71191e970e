# OpenCLIP's ViT-B-16, visual tower. The text tower: backbone.options.tower='text' with text data.
_base_ = ["../_base_/digits.py"]
backbone = dict(name="open_clip/ViT-B-16")
distill = dict(method="mdpd_low_rank")

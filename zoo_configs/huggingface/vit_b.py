# transformers' ViT-B/16.
_base_ = ["../_base_/digits.py"]
backbone = dict(name="huggingface/vit-base-patch16-224")

# MMPretrain's ViT-B/16 classifier.
_base_ = ["../_base_/digits.py"]
backbone = dict(name="mmpretrain/vit-base-p16_32xb128-mae_in1k")
distill = dict(method="mdpd_low_rank")

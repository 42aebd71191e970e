# transformers' ViT-B/16.
_base_ = ["../_base_/digits.py"]
backbone = dict(name="huggingface/vit-base-patch16-224")
distill = dict(method="mdpd_low_rank")
work_dir = "work_dirs/huggingface_vit_b"  # mmpretrain/vit_b.py has the name otherwise

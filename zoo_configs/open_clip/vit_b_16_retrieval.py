# Image-text retrieval with both towers of OpenCLIP's ViT-B-16 and their joint space. Your own pictures with captions:
#   --cfg-options data.source.type=table data.source.path=captions.csv data.source.image_column=file \
#       data.source.text_column=caption data.source.label_kind=pair
backbone = dict(name="open_clip/ViT-B-16", options=dict(tower="both"))
data = dict(
    source=dict(type="packaged", name="easy-vqa", form="caption", train_size=200, val_size=100),
    batch_size=16,
    input_size=112,
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=1)

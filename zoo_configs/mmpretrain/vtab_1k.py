# MMPretrain's ViT-B/16, supervised on ImageNet-21k and 1k, on a task of VTAB-1k in data/vtab-1k (the usual layout, see
# docs/data.md). Another task: --cfg-options data.source.name=dtd --work-dir work_dirs/vtab_dtd
# As it stands it trains on 800 pictures and validates on 200, for tuning; data.source.full=True trains on all 1,000 and
# evaluates on the test data, for final numbers.
backbone = dict(name="mmpretrain/vit-base-p16_in21k-pre_3rdparty_in1k-384px")
data = dict(source=dict(type="vtab", name="cifar", root="data/vtab-1k"), batch_size=64, input_size=224)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=100, val_every=130, checkpoint_every=130)

"""The example's network on the example's data: some seconds on a CPU."""

backbone = dict(name="example/small-vit")
data = dict(source=dict(type="stripes", count=240, noise=0.5), batch_size=16)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=4)

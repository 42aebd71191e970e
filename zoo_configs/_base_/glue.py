# GLUE by name, from the hub or its cache: --cfg-options data.source.name=cola (sst2, mrpc, qqp, stsb, mnli, qnli, rte,
# wnli). From a local folder, in GLUE's own layout or as `datasets` saves it: data.source.root=/my/glue
# Validation data is what is evaluated on: labels of GLUE's test data are hidden.
data = dict(source=dict(type="glue", name="rte"), batch_size=32, max_length=128)
train = dict(max_epochs=5)

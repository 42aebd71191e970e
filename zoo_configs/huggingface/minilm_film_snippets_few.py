# Few labels: 100 snippets of film reviews with a label and 1,500 without (get the data as minilm_film_snippets.py
# says). A coach learns first from the 100, on the frozen backbone; then it teaches the backbone on all 1,600. Which
# coach, and which evaluation, is decided on 200 snippets of val.
_base_ = ["minilm_film_snippets.py"]
data = dict(
    source=dict(train_size=100, val_size=200, test_size=1000),
    unlabelled=dict(type="rest", size=1500),
    batch_size=16,
    eval_split="test",
)
distill = dict(method="mdpd_coach_low_rank")
train = dict(max_epochs=2, val_every=50, keep="best")

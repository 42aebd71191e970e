# Few labels: 100 handwritten digits with a label and 1,500 without, on the ViT-S/14 of dinov2_s.py (convert its weights
# once, as said there). A coach learns first from the 100, on the frozen backbone; then it teaches the backbone on all
# 1,600, of which it sees the labelled ones eight times as often. Which coach, and which evaluation, is decided on 200
# digits of val. Both see augmented digits, the coach ten kept views of each. So augmented, and trained for longer, the
# labels alone were better still, and a backbone that teaches itself was best (docs/results.md).
_base_ = ["dinov2_s_mnist.py"]
data = dict(
    source=dict(train_size=100, val_size=200, test_size=1000),
    unlabelled=dict(type="rest", size=1500),
    augment="crop+randaugment",
    eval_split="test",
)
distill = dict(method="mdpd_coach_low_rank", cache_views=10, labelled_repeats=8)
train = dict(max_epochs=2, val_every=50, keep="best")

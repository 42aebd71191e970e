#!/bin/sh
# Few labels and many inputs without: the lines behind docs/results.md. It goes on where it was stopped.
# From the root of a checkout, after the data and weights that the configurations name:
#   sh tools/compare/few_labels.sh docs/data/coach.jsonl 1 0 1 2 3 4      (file, jobs, seeds)
# TASKS="digits" takes one of the tasks digits, fashion, solar, snippets, topics and tweets; LABELS=400 another number of
# labelled examples; AUGMENT=crop+randaugment the rows of which everything sees augmented pictures; and
# ROWS="low_rank_alone coach_reader" some of the rows.
# A seed draws the division of the data, too. Which epoch is kept is decided on 200 examples of val.
out=$1; jobs=$2; shift 2
low="distill.backbone_update=norm+low_rank"
labels="${LABELS:-100}"
# From fewer labels as many steps, and as many before one gives up.
epochs=$((labels < 100 ? 3600 / labels : 36))
first=""
[ "$labels" -lt 100 ] && first=",coach.patience=$((1000 / labels)),coach.max_epochs=$((6000 / labels))"
alone="train.max_epochs=$epochs,train.patience=5,train.val_every=28"
size="${UNLABELLED:-1500}"
tasks="${TASKS:-digits fashion solar snippets topics tweets}"
stop() {
    echo "error: $1" >&2
    exit 2
}
for task in $tasks; do
    case $task in digits | fashion | solar | snippets | topics | tweets) ;; *) stop "task $task is not known" ;; esac
done
sweep() {
    config=$1 seed=$2 options=$3
    taught="data.unlabelled.type=rest,data.unlabelled.size=$size,train.max_epochs=2,train.val_every=50"
    coach="method=mdpd_coach_low_rank,$taught"
    if [ -n "$AUGMENT" ]; then
        # Each picture is another one in every epoch: what learns from them, also from a coach, goes on for longer.
        options="$options data.augment=$AUGMENT train.max_steps=800 train.patience=5 train.val_every=50"
        taught="data.unlabelled.type=rest,data.unlabelled.size=$size"
        coach="method=mdpd_coach_low_rank,$taught" views="distill.cache_views=10"
        often="distill.labelled_repeats=8"
        longer="coach.max_epochs=$((11500 / labels)),coach.patience=$((3600 / labels))"
        set -- "low_rank_alone_aug:method=norm,$low" "coach_reader_aug:$coach,distill.coach=reader,$views" \
            "self_training_aug:$coach,distill.coach=backbone,$longer" "lora_alone_aug:method=lora" \
            "coach_norm_aug:method=mdpd_coach,optim.scale=3,distill.coach=reader,$views,$taught" \
            "norm_alone_aug:method=norm,optim.scale=3" \
            "mdpd_alone_aug:method=mdpd,distill.backbone_every=1,optim.scale=3" \
            "mdpd_low_rank_alone_aug:method=mdpd_low_rank" \
            "coach_both_aug:$coach,distill.coach=reader+backbone,$views,$longer" "fixmatch_aug:method=fixmatch,$taught" \
            "coach_reader_often_aug:$coach,distill.coach=reader,$views,$often" \
            "self_training_often_aug:$coach,distill.coach=backbone,$longer,$often"
    else
        set -- "linear_alone:method=linear,optim.scale=3,$alone" "norm_alone:method=norm,optim.scale=3,$alone" \
            "lora_alone:method=lora,$alone" "low_rank_alone:method=norm,$low,$alone" \
            "mdpd_alone:method=mdpd,distill.backbone_every=1,optim.scale=3,$alone" \
            "mdpd_low_rank_alone:method=mdpd_low_rank,$alone" \
            "coach_norm:method=mdpd_coach,optim.scale=3,$taught$first" "coach_ladder:$coach,distill.coach=ladder$first" \
            "coach_reader:$coach,distill.coach=reader" \
            "self_training:$coach,distill.coach=backbone$first,coach.max_epochs=$epochs" \
            "coach_both:$coach,distill.coach=reader+backbone$first,coach.max_epochs=$epochs" \
            "two_backbones:$coach,distill.coach=backbone+backbone$first,coach.max_epochs=$epochs"
    fi
    known="" wanted=" ${ROWS:-all} "
    for row in "$@"; do  # those that were asked for
        shift
        known="$known ${row%%:*}"
        case $wanted in " all " | *" ${row%%:*} "*) set -- "$@" "$row" ;; esac
    done
    for row in ${ROWS:-}; do
        case "$known " in *" $row "*) ;; *) stop "row $row is not known; there are:$known" ;; esac
    done
    # shellcheck disable=SC2086  # options are words
    python -m tools.compare sweep "zoo_configs/huggingface/$config.py" --seeds "$seed" --jobs "$jobs" --out "$out" \
        --methods "$@" \
        --cfg-options data.source.train_size="$labels" data.source.val_size=200 data.source.test_size=1000 \
        "data.source.split_seed=$seed" data.batch_size=16 train.keep=best distill.recompute=False $options
}
for seed in "$@"; do
    case $tasks in *digits*) sweep dinov2_s_mnist "$seed" ;; esac
    case $tasks in *fashion*) sweep dinov2_s_fashion "$seed" data.input_size=42 ;; esac
    case $tasks in *solar*) sweep dinov2_s_solar "$seed" data.input_size=70 ;; esac
    case $tasks in *snippets*) sweep minilm_film_snippets "$seed" ;; esac
    case $tasks in *topics*) size=700 sweep minilm_bbc_topics "$seed" backbone.options.head=mean ;; esac
    case $tasks in *tweets*) sweep minilm_tweets "$seed" ;; esac
done

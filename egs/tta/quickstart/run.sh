#!/bin/sh
# The whole recipe on sounds that the program makes itself:
#   sh egs/tta/quickstart/run.sh [options] [key.path=value ...]
#
# Data, both trainings, a hundred sounds from sentences, and a page to listen to them:
# quickstart/index.html. Minutes on a CPU. What was done before is not done again; to start over,
# remove the folder quickstart.
#
#   --output_dir DIR        for all that is made, instead of quickstart
#   --clips_per_kind N      to train on, of each of ten kinds of sound: 80
#   --prompts_per_kind N    to generate: 10
#   --num_steps N           of the sampler: 25
#   key.path=value          settings of preprocessing and both trainings, such as train.max_steps=50
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
folder=quickstart data='' num_steps=25 words=$#
while [ "$words" -gt 0 ]; do
    case $1 in
        --help | -h)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$root/egs/tta/quickstart/run.sh"
            exit
            ;;
        --output_dir=* | --clips_per_kind=* | --prompts_per_kind=* | --num_steps=*)
            option=${1%%=*} value=${1#*=}
            ;;
        --output_dir | --clips_per_kind | --prompts_per_kind | --num_steps)
            [ "$words" -ge 2 ] || { echo "error: $1 needs a value" >&2 && exit 2; }
            option=$1 value=$2 words=$((words - 1))
            shift
            ;;
        -*)
            echo "error: $1: no such option; see: sh egs/tta/quickstart/run.sh --help" >&2
            exit 2
            ;;
        *)
            option=setting
            set -- "$@" "$1"
            ;;
    esac
    case $option in
        --output_dir)
            case $value in
                /*) folder=$value ;;
                '~'/*) folder=$HOME/${value#*/} ;; # after "=" no shell does it
                *) folder=$(pwd)/$value ;;
            esac
            ;;
        --num_steps) num_steps=$value ;;
        --*) data="$data $option=$value" ;;
    esac
    shift
    words=$((words - 1))
done
sh "$root/utils/setup.sh"
. "$root/utils/environment.sh"
here=egs/tta/quickstart

# stage NAME COMMAND...: runs it and notes its seconds, the most that it ever took.
stage() {
    name=$1
    shift
    echo "== $name"
    began=$(date +%s)
    "$@"
    seconds=$(($(date +%s) - began))
    mkdir -p "$folder/seconds"
    before=$(cat "$folder/seconds/$name" 2>/dev/null || echo 0)
    if [ "$seconds" -ge "$before" ]; then
        echo "$seconds" > "$folder/seconds/$name"
    fi
}

# with_settings SCRIPT CONFIG SETTINGS...: runs it on what lies in the folder.
with_settings() {
    script=$1 config=$2
    shift 2
    sh "$script" --config "$config" "log_dir=$folder/runs" \
        "preprocess.processed_dir=$folder/data" "$@"
}

# shellcheck disable=SC2086 # one word for each option
stage "1 making sounds" "$PYTHON" bins/tta/demo.py --output_dir "$folder" $data
stage "2 preprocessing" \
    with_settings egs/tta/preprocess/run_preprocess.sh $here/autoencoderkl.json "$@"
stage "3 training the VAE" \
    with_settings egs/tta/autoencoderkl/run_train.sh $here/autoencoderkl.json "$@"
stage "4 training the U-Net" \
    with_settings egs/tta/audioldm/run_train.sh $here/audioldm.json "$@"
last=$(printf '%04d' $(($(wc -l < "$folder/prompts.txt") - 1)))
if ! [ -f "$folder/sounds/$last.wav" ]; then
    stage "5 generating" sh egs/tta/audioldm/run_inference.sh \
        --text_file "$folder/prompts.txt" --log_dir "$folder/runs" \
        --output_dir "$folder/sounds" --batch_size 25 --num_steps "$num_steps"
fi
stage "6 listening" "$PYTHON" bins/tta/quickstart.py page --output_dir "$folder"

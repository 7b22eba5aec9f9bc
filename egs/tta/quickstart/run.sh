#!/bin/sh
# The whole recipe on sounds that the program makes itself: sh egs/tta/quickstart/run.sh
#
# Data, both trainings, a hundred sounds from sentences, and a page to listen to them:
# quickstart/index.html. Minutes on a CPU. What was done before is not done again; to start over,
# remove the folder quickstart.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
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
    mkdir -p quickstart/seconds
    before=$(cat "quickstart/seconds/$name" 2>/dev/null || echo 0)
    if [ "$seconds" -ge "$before" ]; then
        echo "$seconds" > "quickstart/seconds/$name"
    fi
}

stage "1 making sounds" "$PYTHON" bins/tta/quickstart.py data
stage "2 preprocessing" sh egs/tta/preprocess/run_preprocess.sh --config $here/autoencoderkl.json
stage "3 training the VAE" sh egs/tta/autoencoderkl/run_train.sh --config $here/autoencoderkl.json
stage "4 training the U-Net" sh egs/tta/audioldm/run_train.sh --config $here/audioldm.json
if ! [ -f quickstart/sounds/0099.wav ]; then
    stage "5 generating" sh egs/tta/audioldm/run_inference.sh --text_file quickstart/prompts.txt \
        --log_dir quickstart/runs --output_dir quickstart/sounds --batch_size 25
fi
stage "6 listening" "$PYTHON" bins/tta/quickstart.py page

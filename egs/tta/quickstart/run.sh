#!/bin/sh
# The whole recipe on sounds that the program makes itself:
#   sh egs/tta/quickstart/run.sh [options] [key.path=value ...]
#
# Data, both trainings, a hundred sounds from sentences, and a page to listen to them:
# quickstart/index.html. Minutes on a CPU. What was done before is not done again; to start over,
# remove the folder quickstart.
#
#   --output_dir DIR        for all that is made, instead of quickstart
#   --clips_per_kind N      of each of ten kinds of sound, a tenth for validation: 80 (10 to 1000)
#   --prompts_per_kind N    to generate: 10 (at most)
#   --num_steps N           of the sampler: 10
#   key.path=value          settings of preprocessing and both trainings, such as train.max_steps=50
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
options="--output_dir --clips_per_kind --prompts_per_kind --num_steps" num_steps=10
. "$root/egs/tta/quickstart/common.sh"

# shellcheck disable=SC2086 # one word for each option
stage "1 making sounds" "$PYTHON" bins/tta/demo.py --output_dir "$folder" $data
stage "2 preprocessing" \
    with_settings egs/tta/preprocess/run_preprocess.sh $here/autoencoderkl.json "$@"
stage "3 training the VAE" \
    with_settings egs/tta/autoencoderkl/run_train.sh $here/autoencoderkl.json "$@"
stage "4 training the U-Net" \
    with_settings egs/tta/audioldm/run_train.sh $here/audioldm.json \
    "model.autoencoder_path=$folder/runs/quickstart_autoencoderkl" \
    "inference.num_steps=$num_steps" "$@"
last=$(printf '%04d' $(($(wc -l < "$folder/prompts.txt") - 1)))
sound=$folder/sounds/$last
if ! [ -s "$sound.wav" ] || [ "$folder/runs/quickstart_audioldm/final" -nt "$sound.wav" ] ||
    ! grep -q "\"num_steps\": $num_steps," "$sound.json"; then
    rm -rf -- "$folder/sounds" # of a run that was stopped, of other weights or steps
    stage "5 generating" sh egs/tta/audioldm/run_inference.sh \
        --text_file "$folder/prompts.txt" --log_dir "$folder/runs" \
        --output_dir "$folder/sounds" --batch_size 25 --num_steps "$num_steps"
fi
stage "6 listening" "$PYTHON" bins/tta/quickstart.py page --output_dir "$folder"

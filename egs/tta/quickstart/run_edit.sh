#!/bin/sh
# Editing, with the quickstart's models (egs/tta/quickstart/run.sh comes first):
#   sh egs/tta/quickstart/run_edit.sh [options] [key.path=value ...]
#
# Triplets of the quickstart's sounds, the VAE and an editor trained on them, a hundred edits of
# mixtures that they never heard, what other ways give for the same, and a page to listen to it all:
# quickstart/edits/index.html. Minutes on a CPU. What was done before is not done again.
#
#   --output_dir DIR        of the quickstart, instead of quickstart
#   --num_steps N           of the editor's sampler: 4
#   key.path=value          settings of the trainings, such as train.max_steps=50, and of the
#                           triplets, such as edits.test.add=5
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
options="--output_dir --num_steps" num_steps=4
. "$root/egs/tta/quickstart/common.sh"
if ! [ -f "$folder/index.html" ]; then
    echo "error: $folder: no quickstart has ended there; first run:" \
        "sh egs/tta/quickstart/run.sh --output_dir '$folder'" >&2
    exit 2
fi
times=$folder/edits/seconds triplets=''
for setting in "$@"; do
    shift
    case $setting in
        edits.*) triplets="$triplets $setting" ;;
        *) set -- "$@" "$setting" ;;
    esac
done

# shellcheck disable=SC2086 # one word for each setting
stage "1 making triplets" \
    with_settings egs/tta/audit/run_preprocess.sh $here/edits.json $triplets
stage "2 training the VAE on" with_settings egs/tta/autoencoderkl/run_train.sh \
    $here/autoencoderkl_edits.json "train.init_from=$folder/runs/quickstart_autoencoderkl" "$@"
vae=$folder/runs/quickstart_autoencoderkl_edits
stage "3 training the editor" with_settings egs/tta/audit/run_train.sh $here/audit.json \
    "model.autoencoder_path=$vae" "inference.num_steps=$num_steps" "$@"
stage "4 editing" sh egs/tta/audit/run_edit.sh --list "$folder/data/DemoEdits/test.json" \
    --log_dir "$folder/runs" --output_dir "$folder/edits/sounds" --num_steps "$num_steps"
stage "5 listening" "$PYTHON" bins/tta/quickstart.py edits --output_dir "$folder"

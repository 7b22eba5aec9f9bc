# Sourced by the quickstart's scripts: reads their options and goes to the repository's root.
# A script sets `root`, `options` (their names) and `num_steps` before it sources this file.
#
# Leaves folder, num_steps, and data, the other options; the settings (key.path=value) stay in "$@".
# The help is the comment at the head of the script.

folder=quickstart data='' words=$#
while [ "$words" -gt 0 ]; do
    case $1 in
        --help | -h)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$root/egs/tta/quickstart/${0##*/}"
            exit
            ;;
        -*)
            option=${1%%=*} value=${1#*=}
            case " $options " in
                *" $option "*) ;;
                *)
                    echo "error: $1: no such option; see: sh egs/tta/quickstart/${0##*/} --help" >&2
                    exit 2
                    ;;
            esac
            if [ "$option" = "$1" ]; then
                [ "$words" -ge 2 ] || { echo "error: $1 needs a value" >&2 && exit 2; }
                value=$2 words=$((words - 1))
                shift
            fi
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
times=$folder/seconds

# stage NAME COMMAND...: runs it and notes its seconds, the most that it ever took.
stage() {
    name=$1
    shift
    echo "== $name"
    began=$(date +%s)
    "$@"
    seconds=$(($(date +%s) - began))
    mkdir -p "$times"
    before=$(cat "$times/$name" 2>/dev/null || echo 0)
    if [ "$seconds" -ge "$before" ]; then
        echo "$seconds" > "$times/$name"
    fi
}

# with_settings SCRIPT CONFIG SETTINGS...: runs it on what lies in the folder.
with_settings() {
    script=$1 config=$2
    shift 2
    sh "$script" --config "$config" "log_dir=$folder/runs" \
        "preprocess.processed_dir=$folder/data" "$@"
}

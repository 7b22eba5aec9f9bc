# Sourced by run_train.sh: `launch SCRIPT ARGUMENTS` starts one process for each visible GPU.
# Under an outer launcher (accelerate launch, torchrun, srun with RANK set) it starts just its own.

launch() {
    gpus=$("$PYTHON" utils/count_gpus.py)
    if [ -n "${RANK:-}" ] || [ "$gpus" -le 1 ]; then
        exec "$PYTHON" "$@"
    fi
    exec "$PYTHON" -m accelerate.commands.launch --multi_gpu --num_processes "$gpus" \
        --mixed_precision no --dynamo_backend no --num_machines 1 --main_process_port 0 "$@"
}

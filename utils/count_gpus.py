"""Prints the number of visible GPUs, without the seconds that importing torch takes."""

import os
import shutil
import subprocess


def count_gpus() -> int:
    """GPUs this process may use: CUDA_VISIBLE_DEVICES if set, else all that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


if __name__ == "__main__":
    print(count_gpus())

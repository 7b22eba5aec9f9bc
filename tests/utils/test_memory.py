import platform
import subprocess
import sys

import pytest

from tests import tiny

SIZE = 64 << 20
KEPT = f"""
import os
from utils.memory import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

{{prepare}}
before = resident()
touched = b"x" * {SIZE}
held = resident() - before
del touched
print(held / {SIZE}, (resident() - before) / {SIZE})
"""


def shares(prepare: str) -> tuple[float, float]:
    """Of SIZE bytes, what a process holds while it uses them and after it has freed them."""
    command = [sys.executable, "-c", KEPT.format(prepare=prepare)]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, check=True)
    used, freed = map(float, done.stdout.split())
    return used, freed


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.system() != "Linux", reason="not Linux' glibc"
)
def test_what_was_freed_stays_with_the_process():
    assert shares("keep_memory()") == pytest.approx((1, 1), abs=0.05)
    assert shares("") == pytest.approx((1, 0), abs=0.05)  # what happens otherwise

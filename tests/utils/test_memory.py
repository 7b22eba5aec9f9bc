import platform
import resource
import subprocess
import sys

import pytest

from tests import tiny

SIZE = 64 << 20
FAULTS = f"""
import resource
from utils.memory import keep_memory

keep_memory()
bytearray({SIZE})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray({SIZE})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_freed_is_used_again_without_the_kernel():
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, check=True)
    assert int(done.stdout) < 0.05 * SIZE / resource.getpagesize()

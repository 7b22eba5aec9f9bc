"""Lets torchaudio be imported beside a torch without CUDA.

torchaudio's last release carries a compiled extension that links CUDA's libraries; beside a
CPU-only torch it cannot load, and then `import torchaudio` fails. Nothing used here needs the
extension (Griffin-Lim is pure Python), and torchaudio does without it where its folder `lib` is
absent. So where the import fails, the folder is moved aside. Run by set-up; harmless to run again.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def main() -> None:
    attempt = subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True)
    if attempt.returncode == 0:
        return
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        sys.exit("error: torchaudio is not installed; run: sh utils/setup.sh")
    library = Path(spec.origin).parent / "lib"
    aside = library.with_name("lib-without-cuda")
    if library.is_dir():
        library.rename(aside)
        print(f"set-up: torchaudio's CUDA extension cannot load here and is not needed: {aside}")
    subprocess.run([sys.executable, "-c", "import torchaudio"], check=True)


if __name__ == "__main__":
    main()

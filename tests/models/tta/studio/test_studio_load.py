"""Twenty programs at once: each gets its own, in its turn, and memory stays flat."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

gradio_client = pytest.importorskip(
    "gradio_client", reason="gradio is not installed; sh egs/tta/studio/run.sh does it"
)
CLIENTS, SECONDS = 20, 2
LONGEST = 60.0  # seconds that one may wait: machines are busy
GROWTH = 64  # MiB, of server and clients together
QUICK = {"duration": 0.1, "num_steps": 2}


def resident() -> float:
    """MiB of this process."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def ask(client, number: int, until: Callable[[], bool]) -> list[float]:
    """Asks for sounds until then, one of three clients for two at a time; seconds of each wait."""
    waits = []
    while not waits or not until():
        text, seed, count = f"bell {number}", 1000 * number + len(waits), 1 + (number % 3 == 0)
        began = time.monotonic()
        wish = {"text": text, "seed": seed, "num_sounds": count, **QUICK}
        files, receipts = client.predict(**wish, api_name="/generate")
        waits.append(time.monotonic() - began)
        assert [(r["text"], r["seed"]) for r in receipts] == [
            (text, seed + k) for k in range(count)
        ]
        assert [Path(file).name for file in files] == [receipt["file"] for receipt in receipts]
    return waits


def greedy(served) -> None:
    """A program that asks for a long sound and is killed while it waits."""
    functions = httpx.get(f"{served.address}/config").json()["dependencies"]
    number = next(f["id"] for f in functions if f["api_name"] == "generate")
    data = ["greedy", None, 1.0, 3, 0, 1000, None, None, None, None, None]
    api, body = f"{served.address}/gradio_api/queue", {"data": data, "fn_index": number}
    assert httpx.post(f"{api}/join", json={**body, "session_hash": "greedy"}).status_code == 200
    with httpx.stream("GET", f"{api}/data?session_hash=greedy", timeout=60) as response:
        for line in response.iter_lines():
            if "process_generating" in line:
                return


def load(served, seconds: float) -> tuple[list[list[float]], float, float]:
    """The waits of each client; MiB before and after."""
    connect = functools.partial(gradio_client.Client, served.address, verbose=False)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = list(pool.map(lambda _: connect(analytics_enabled=False), range(CLIENTS)))
        list(pool.map(ask, clients, range(CLIENTS), [lambda: True] * CLIENTS))
        before, end = resident(), time.monotonic() + seconds

        def late() -> bool:
            return time.monotonic() > end

        running = [pool.submit(ask, client, k, late) for k, client in enumerate(clients)]
        greedy(served)
        return [each.result(seconds + LONGEST) for each in running], before, resident()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
def test_nobody_waits_for_ever_and_nothing_is_mixed_up(served):
    waits, before, after = load(served, SECONDS)
    longest = max(map(max, waits))
    assert longest < LONGEST
    assert statistics.median(map(len, waits)) <= 3 * min(map(len, waits)) + 1  # in turns
    assert after - before < GROWTH
    end = time.monotonic() + LONGEST
    while served.studio.turns.busy and time.monotonic() < end:
        time.sleep(0.05)
    assert not served.studio.turns.busy  # the one that was killed included
    texts = [kept.receipt["text"] for kept in served.studio.history.newest("")]
    assert "greedy" not in texts

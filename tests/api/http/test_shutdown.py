"""The end of a process that its threads do not let go."""

import signal
import subprocess
import sys
import time

from tests.support import ROOT

_PROGRAM = """
import asyncio, signal, threading
from app.api.http import shutdown

shutdown.LONGEST_S = 1
signal.signal(signal.SIGTERM, lambda *_: None)

async def serve():
    with shutdown.draining_on_signals(shutdown.Draining(), 0):
        print("ready", flush=True)
        await asyncio.sleep(0.5)

threading.Thread(target=lambda: threading.Event().wait(60), name="stuck").start()
asyncio.run(serve())
"""


def test_process_ends_in_time_whatever_its_threads_do() -> None:
    """A thread in a decoder let the service live for minutes after SIGTERM."""
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    assert process.returncode == 1
    assert "in wait" in error, "the log says where threads are"

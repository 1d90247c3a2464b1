"""Callers in a container of their own, in the network of a compose file. It needs no package.

``python callers.py URL FOLDER CALLERS SECONDS`` sends the bodies in FOLDER to ``URL/predict``, each once with 0
SECONDS, and prints JSON: how often each status or error came, the longest answer in seconds, and the last answer to
each body.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit


def main(url: str, folder: str, callers: int, seconds: float) -> None:
    """Send the bodies by ``callers`` threads for ``seconds``, and print what came back."""
    address = urlsplit(url)
    content_type = Path(folder, "content-type").read_text()
    bodies = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.body"))}
    outcomes: dict[str, int] = {}
    answers: dict[str, str] = {}
    longest = 0.0
    lock = threading.Lock()
    began = time.monotonic()

    def call(number: int) -> None:
        nonlocal longest
        names = list(bodies)[number:] + list(bodies)[:number]
        for name in itertools.cycle(names) if seconds else names:
            if seconds and time.monotonic() - began > seconds:
                return
            sent = time.monotonic()
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=180)
            try:
                connection.request("POST", "/predict", bodies[name], {"content-type": content_type})
                response = connection.getresponse()
                answer, outcome = response.read().decode(), str(response.status)
            except (OSError, http.client.HTTPException) as error:
                answer, outcome = str(error), type(error).__name__
            finally:
                connection.close()
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                answers[name] = answer
                longest = max(longest, time.monotonic() - sent)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"outcomes": outcomes, "longest": longest, "answers": answers}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

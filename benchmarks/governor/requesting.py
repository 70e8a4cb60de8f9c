"""The same loop of requests in a governed child and in a bare process."""

from __future__ import annotations

import http.client
import json
import sys
import time


def ask(port: int, count: int) -> list[float]:
    """Microseconds of each of ``count`` requests over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    took = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", "/")
        connection.getresponse().read()
        took.append((time.perf_counter() - began) * 1e6)
    connection.close()
    return took


if __name__ == "__main__":
    print(json.dumps(ask(int(sys.argv[1]), int(sys.argv[2]))))

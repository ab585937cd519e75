"""Latency of a served search under a closed loop of clients, on the same machine.

    python benchmarks/serve.py my.index                        # starts freestyle serve and ends it
    python benchmarks/serve.py my.index --serve "--onnx exported --workers 1"
    python benchmarks/serve.py --url http://127.0.0.1:8000     # that runs, with --rate 0

Each of 8 clients asks, takes the answer, thinks for 100 ms and asks again, for 60 s; times go from
the first byte sent to the last received. Queries are sketches and texts of DSR-Emoji's test split:
half a sketch, a quarter a text, a quarter both, as the page sends them. No two are alike (sketches
are shifted by some pixels, texts put in other words), so that no answer comes from memory. They are
made before the clock runs; the clients are bare sockets and take little of the cores they share
with the server; how much is in the result. Before the clock runs too, each client asks
``--warm-up`` times. ``--check`` exits with 1 where the 95th percentile reaches ``--limit`` or
anything but 200 was answered.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHIFT = 12  # pixels
SHORTEST = 20  # milliseconds of a client's round, for which enough queries are made
PHRASES = ("{}", "a {}", "the {}", "one {}", "picture of {}", "{}, drawn", "my {}", "some {}")
KINDS = ("sketch", "text", "sketch", "sketch+text")
BOUNDARY = "0c1ea7b5d5fc42b0"


@dataclass
class Result:
    """What was measured; times in milliseconds.

    Attributes:
        requests: Answered with 200.
        errors: By status or name of the failure, how many.
        per_second: Answers.
        p50: Median.
        p95: 95th percentile.
        p99: 99th percentile.
        longest: Slowest answer.
        by_kind: The percentiles by kind of query.
        stages: Mean of each stage, from the server's metrics.
        batch: Mean number of queries answered together.
        client_cores: Processor time of the clients per second.
        server_cores: Of the server and its processes; 0 where it is not ours.
        seconds: That it ran.
        clients: Their number.
        think: Milliseconds between an answer and the next query.
        machine: Processor and cores.
    """

    requests: int
    errors: dict[str, int]
    per_second: float
    p50: float
    p95: float
    p99: float
    longest: float
    by_kind: dict[str, dict[str, float]]
    stages: dict[str, float]
    batch: float
    client_cores: float
    server_cores: float
    seconds: float
    clients: int
    think: float
    machine: str = field(default_factory=lambda: f"{platform.machine()}, {os.cpu_count()} cores")


def sketches(count: int, folder: Path, seed: int) -> list[bytes]:
    """PNG bytes of test sketches, each shifted by some pixels."""
    rng = np.random.default_rng(seed)
    names = [entry["image"] for entry in json.loads((folder / "test.json").read_text("utf-8"))]
    pictures = [Image.open(folder / "sketch" / name).convert("RGB") for name in names]
    made: dict[bytes, None] = {}  # in order, each once: an empty sketch is the same when shifted
    for picture in itertools.cycle(pictures):
        if len(made) == count:
            break
        shifted = Image.new("RGB", picture.size, "white")
        shifted.paste(picture, tuple(rng.integers(-SHIFT, SHIFT + 1, 2).tolist()))
        buffer = io.BytesIO()
        shifted.save(buffer, "PNG", compress_level=1)
        made[buffer.getvalue()] = None
    return list(made)


def texts(count: int, folder: Path) -> list[str]:
    """Test captions in different words."""
    names = [entry["caption"] for entry in json.loads((folder / "test.json").read_text("utf-8"))]
    captions = [
        (folder / "text" / name).read_text("utf-8").splitlines()[0].strip() for name in names
    ]
    made = []
    for number in range(count):
        turn, place = divmod(number, len(captions))
        made.append(PHRASES[turn % len(PHRASES)].format(captions[place]))
    return made


def request(kind: str, sketch: bytes, text: str, host: str, token: str) -> bytes:
    """A whole request, ready for the socket."""
    parts: list[dict] = []
    if "sketch" in kind:
        parts.append({"file": "sketch"})
    if "text" in kind:
        parts.append({"text": text})
    query = json.dumps({"parts": parts, "top": 20}).encode()
    body, media_type = query, "application/json"
    if "sketch" in kind:
        media_type = f"multipart/form-data; boundary={BOUNDARY}"
        field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="request"\r\n\r\n'
        file = (
            f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="sketch"; '
            'filename="sketch.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        body = field.encode() + query + file.encode() + sketch + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = f"POST /search HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\n"
    head += f"Content-Length: {len(body)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return head.encode() + b"\r\n" + body


def exchange(connection: socket.socket, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a request."""
    connection.sendall(data)
    answer = bytearray()
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += received(connection)
    head = bytes(answer[:end]).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(answer) < end + 4 + length:
        answer += received(connection)
    return int(head.split(b" ", 2)[1]), bytes(answer[end + 4 :])


def received(connection: socket.socket) -> bytes:
    """Some bytes.

    Raises:
        ConnectionError: At the end.
    """
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("closed")
    return data


class Client(threading.Thread):
    """Asks, thinks, asks again.

    Attributes:
        times: Milliseconds and kind of each answer.
        errors: Status or name of each failure.
    """

    def __init__(
        self,
        address: tuple[str, int],
        queries: list[tuple[str, bytes]],
        options: argparse.Namespace,
    ) -> None:
        super().__init__(daemon=True)
        self.address, self.queries, self.options = address, queries, options
        self.times: list[tuple[float, str]] = []
        self.errors: list[str] = []
        self.begin, self.end = threading.Event(), 0.0
        self.ready = threading.Event()

    def run(self) -> None:
        """Warm up, wait for the start, ask until the end."""
        try:
            self._ask()
        except (OSError, ValueError) as error:  # the server is gone
            self.errors.append(type(error).__name__)
        finally:
            self.ready.set()

    def _ask(self) -> None:
        connection = socket.create_connection(self.address, timeout=60)
        waiting = iter(self.queries)
        for _ in range(self.options.warm_up):
            status, body = exchange(connection, next(waiting)[1])
            if status != 200:
                self.errors.append(f"{status} {body[:200].decode('utf-8', 'replace')}")
        self.ready.set()
        self.begin.wait()
        for kind, data in waiting:
            start = time.perf_counter()
            if start >= self.end:
                return
            try:
                status, body = exchange(connection, data)
            except (OSError, ValueError) as error:
                self.errors.append(type(error).__name__)
                connection.close()
                connection = socket.create_connection(self.address, timeout=60)
                continue
            milliseconds = 1000 * (time.perf_counter() - start)
            if status == 200 and body.startswith(b'{"hits":[{'):
                self.times.append((milliseconds, kind))
            else:
                self.errors.append(str(status))
            time.sleep(self.options.think / 1000)
        self.errors.append("queries ran out")


def measure(address: tuple[str, int], options: argparse.Namespace, pid: int = 0) -> Result:
    """Run the clients against a server that answers."""
    each = options.warm_up + int(1000 * options.seconds / max(options.think, SHORTEST)) + 1
    count = options.clients * each
    folder, host = Path(options.data), f"{address[0]}:{address[1]}"
    drawn, written = sketches(count, folder, options.seed), texts(count, folder)
    queries = [
        (kind, request(kind, drawn[n], written[n], host, options.token))
        for n, kind in ((n, KINDS[(n // options.clients) % len(KINDS)]) for n in range(count))
    ]
    clients = [
        Client(address, queries[n :: options.clients], options) for n in range(options.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.ready.wait()
    before = metrics(address, options.token)
    processor, served, start = time.process_time(), processor_seconds(pid), time.perf_counter()
    for client in clients:
        client.end = start + options.seconds
        client.begin.set()
    for client in clients:
        client.join()
    seconds = time.perf_counter() - start
    shares = (time.process_time() - processor, processor_seconds(pid) - served)
    return summary(clients, before, metrics(address, options.token), seconds, shares, options)


def summary(
    clients: Sequence[Client],
    before: dict[str, float],
    after: dict[str, float],
    seconds: float,
    shares: tuple[float, float],
    options: argparse.Namespace,
) -> Result:
    """Percentiles, errors and the server's own view."""
    times = [pair for client in clients for pair in client.times]
    errors: dict[str, int] = {}
    for error in (error for client in clients for error in client.errors):
        errors[error] = errors.get(error, 0) + 1
    kinds = {kind: [t for t, k in times if k == kind] for kind in dict.fromkeys(KINDS)}
    change = {name: value - before.get(name, 0.0) for name, value in after.items()}
    stages = {}
    for name in change:
        if name.startswith("freestyle_stage_seconds_sum"):
            count = change.get(name.replace("_sum", "_count"), 0.0)
            stage = name.partition('stage="')[2].partition('"')[0]
            stages[stage] = round(1000 * change[name] / count, 2) if count else 0.0
    batches = change.get("freestyle_batch_queries_count", 0.0)
    return Result(
        requests=len(times),
        errors=errors,
        per_second=round(len(times) / seconds, 1),
        **percentiles([t for t, _ in times]),
        by_kind={kind: percentiles(values) for kind, values in kinds.items()},
        stages=stages,
        batch=round(change.get("freestyle_batch_queries_sum", 0.0) / batches, 2) if batches else 0,
        client_cores=round(shares[0] / seconds, 2),
        server_cores=round(shares[1] / seconds, 2),
        seconds=round(seconds, 1),
        clients=options.clients,
        think=options.think,
    )


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds; nothing was measured where there are none."""
    values = np.percentile(times, (50, 95, 99, 100)).round(1).tolist() if times else [0.0] * 4
    return dict(zip(("p50", "p95", "p99", "longest"), values, strict=True))


def metrics(address: tuple[str, int], token: str) -> dict[str, float]:
    """The server's metrics by name and labels."""
    head = f"GET /metrics HTTP/1.1\r\nHost: {address[0]}\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    with socket.create_connection(address, timeout=60) as connection:
        _, body = exchange(connection, head.encode() + b"\r\n")
    rows = (line.rpartition(" ") for line in body.decode().splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in rows if name}


def processor_seconds(pid: int) -> float:
    """Processor time of a process and its children so far; 0 where it cannot be told."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        rows = [Path(f"/proc/{n}/stat").read_text().rpartition(")")[2] for n in (pid, *children)]
    except OSError:
        return 0.0
    ticks = sum(int(row.split()[11]) + int(row.split()[12]) for row in rows)
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(index: str, more: str) -> Iterator[tuple[tuple[str, int], int]]:
    """Start ``freestyle serve``; its address and process."""
    command = [sys.executable, "-m", "freestyle.cli", "serve", index, "--port", "0", "--rate", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [*command, *shlex.split(more)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = server.stdout.readline()
        if "http" not in line:
            raise SystemExit(f"the server of {index} did not start: its own words are above")
        url = urlsplit(next(word for word in line.split() if word.startswith("http")))
        yield (url.hostname, url.port), server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        if code := server.wait(60):
            print(f"the server ended with {code}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("index", nargs="?", help="index to serve; none with --url")
    p.add_argument("--url", help="server that runs already")
    p.add_argument("--serve", default="", help="further options of freestyle serve")
    p.add_argument("--token", default="", help="bearer token")
    p.add_argument("--data", default=str(ROOT / "data/emoji"), help="data set in the DSR layout")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--think", type=float, default=100, help="milliseconds")
    p.add_argument("--warm-up", type=int, default=5, help="uncounted queries of each client")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", help="write the result here")
    p.add_argument("--check", action="store_true", help="exit with 1 if too slow or with errors")
    p.add_argument("--limit", type=float, default=150, help="milliseconds of --check")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = parser().parse_args(arguments)
    if (options.index is None) == (options.url is None):
        print("give an index to serve, or --url", file=sys.stderr)
        return 2
    if options.url:
        url = urlsplit(options.url)
        result = measure((url.hostname or "127.0.0.1", url.port or 80), options)
    else:
        with started(options.index, options.serve) as (address, pid):
            result = measure(address, options, pid)
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    bad = bool(result.errors) or not result.requests or result.p95 >= options.limit
    return int(options.check and bad)


if __name__ == "__main__":
    sys.exit(main())

"""5,000 requests of strangers: the server stays up and small, and refuses in words."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest
from fuzz_cases import FAMILIES, make_case

CASES = int(os.environ.get("FREESTYLE_FUZZ_CASES", "5000"))
SEED = int(os.environ.get("FREESTYLE_FUZZ_SEED", "0"))
THREADS = 4
WARM = 1500  # after these, whatever is loaded, kept or reserved on first use is there
GROWTH = 24 << 20  # bytes; for 3,500 cases of some 20 kB each that is less than half a case
ALLOWED = {*range(400, 500), 200, 503}


def resident(pid):
    """Bytes in memory of a process and of its children, and how many those are."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for number in (pid, *children):
        total += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE"), len(children)


def send(port, case):
    """Status of the answer; None where there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(case.data)
            if not case.answered:  # it may look to the server as if more was to come
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent
        answer = b""
        try:
            while b"\r\n" not in answer:
                piece = connection.recv(4096)
                if not piece:
                    break
                answer += piece
        except ConnectionError:
            pass
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else None


def attack(server, numbers):
    """Send cases from some threads; statuses by family, and what must not have been."""
    seen, wrong = Counter(), []
    waiting = iter(numbers)
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            case = make_case(number, SEED)
            try:
                status = send(server.port, case)
            except OSError as error:
                wrong.append((number, case.family, repr(error)))
                continue
            seen[case.family, status] += 1
            fine = status in ALLOWED if case.answered else status in (*ALLOWED, None)
            if case.good:
                fine = status in (200, 503)
            if not fine:
                wrong.append((number, case.family, status))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen, wrong


@pytest.mark.slow
def test_strangers(live):
    server = live(limits={"pixels": 20_000_000})
    _, wrong = attack(server, range(WARM))
    assert not wrong
    before, decoders = resident(server.process.pid)
    seen, wrong = attack(server, range(WARM, CASES))
    assert not wrong, (wrong[:20], seen)
    assert server.process.poll() is None
    for family, status in (("good", 200), ("bomb", 413), ("values", 422), ("path", 404)):
        assert seen[family, status], seen
    assert {family for family, _ in seen} == {make_case(n).family for n in range(len(FAMILIES))}
    assert send(server.port, make_case(0)) == 200  # a good one
    after, left = resident(server.process.pid)
    assert left == decoders
    assert after - before < GROWTH, (before, after)
    assert server.end() == 0

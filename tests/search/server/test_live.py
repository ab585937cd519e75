"""A server in a process of its own, over real sockets: its end, slow clients, too many clients."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time

import pytest

RED = json.dumps({"parts": [{"text": "red"}]}).encode()


def search(server, text="red", timeout=30):
    """Status and values of one search."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    body = json.dumps({"parts": [{"text": text}]})
    connection.request("POST", "/search", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    values = json.loads(answer.read())
    connection.close()
    return answer.status, values, answer.headers


def metric(server, line):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))


def until(condition, seconds=20):
    """Wait for the server to come to it, however busy the machine is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def together(count, function):
    """Call it from threads at the same time; its values in order."""
    values = [None] * count

    def call(number):
        values[number] = function(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return values


def head(length, path="/search"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def received(connection, seconds=20):
    """Everything until the server closes the connection, and how long that took."""
    connection.settimeout(seconds)
    start, data = time.monotonic(), b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data, time.monotonic() - start


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_end_finishes_what_was_accepted(live, number):
    server = live(delay=0.6, limits={"batch_parts": 1})
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(head(len(RED)) + RED[:10])  # a body on its way counts as accepted
    answers = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(search(server, f"red {n}")))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    begun = ("freestyle_searches_in_flight", 'freestyle_requests_total{route="/search"')
    until(lambda: sum(metric(server, line) for line in begun) == 4)
    server.process.send_signal(number)
    time.sleep(0.1)
    half.sendall(RED[10:])
    data, _ = received(half)
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200] * 3
    assert data.startswith(b"HTTP/1.1 200") and b"connection: close" in data.lower()
    assert server.process.wait(20) == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_concurrent_queries_are_batched(live):
    server = live(delay=0.3)
    answers = together(8, lambda number: search(server, f"red {number}"))
    assert all(status == 200 for status, _, _ in answers)
    assert all(v["hits"][0]["metadata"]["folder"] == "red" for _, v, _ in answers)
    searches = metric(server, "freestyle_batch_queries_sum")
    batches = metric(server, "freestyle_batch_queries_count")
    assert searches == 8 and batches <= 4


def test_back_pressure(live):
    server = live(delay=0.3, limits={"batch_parts": 1, "waiting_parts": 3, "in_flight": 64})
    answers = together(20, lambda number: search(server, f"red {number}"))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert 3 <= statuses.count(200) <= 12
    for status, values, headers in answers:
        if status == 503:
            assert headers["Retry-After"] == "1" and "try again" in values["error"]
    assert search(server)[0] == 200
    assert metric(server, 'freestyle_rejected_total{reason="queue_full"}') == statuses.count(503)


@pytest.mark.slow
def test_in_flight_is_bounded(live):
    server = live(delay=0.3, limits={"in_flight": 2})
    statuses = [a[0] for a in together(8, lambda number: search(server, f"red {number}"))]
    assert set(statuses) == {200, 503} and statuses.count(200) <= 6


@pytest.mark.slow
def test_search_that_takes_too_long(live):
    server = live(delay=1.5, limits={"seconds": 0.2})
    status, values, headers = search(server, "slow")
    assert status == 503 and "too long" in values["error"] and headers["Retry-After"] == "1"


def test_client_that_leaves_costs_no_search(live):
    server = live(delay=1.5, limits={"batch_parts": 1})
    first = threading.Thread(target=search, args=(server, "red 1"))
    first.start()
    until(lambda: metric(server, "freestyle_batch_queries_sum") == 1)
    for number in (1, 2, 3):
        with socket.create_connection(("127.0.0.1", server.port)) as leaves:
            leaves.sendall(head(len(RED)) + RED)
            until(lambda: metric(server, "freestyle_queue_parts") == 1)
        until(lambda number=number: metric(server, "freestyle_dropped_total") == number)
    first.join()
    assert metric(server, "freestyle_batch_queries_sum") == 1
    assert metric(server, 'freestyle_requests_total{route="/search",status="499"}') == 3


@pytest.mark.slow
def test_slow_heads_and_bodies(live):
    server = live(limits={"head_seconds": 0.5, "body_seconds": 0.7})
    silent = socket.create_connection(("127.0.0.1", server.port))
    slow_head = socket.create_connection(("127.0.0.1", server.port))
    slow_body = socket.create_connection(("127.0.0.1", server.port))
    slow_body.sendall(head(1000))

    def drip(connection, data):
        try:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass

    for connection, data in ((slow_head, head(9)), (slow_body, b" " * 100)):
        threading.Thread(target=drip, args=(connection, data), daemon=True).start()
    data, seconds = received(silent, 5)
    assert not data and seconds < 2
    data, seconds = received(slow_head, 5)
    assert not data and seconds < 2
    data, seconds = received(slow_body, 8)
    assert data.startswith(b"HTTP/1.1 408") and b"in time" in data
    kept = http.client.HTTPConnection("127.0.0.1", server.port)
    for pause in (0, 0.7, 0):  # a connection that is kept open is not cut between requests
        time.sleep(pause)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
    assert search(server)[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["connections", "address_connections"])
def test_connections_are_bounded(live, limit):
    server = live(limits={limit: 5})
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    time.sleep(0.1)
    with socket.create_connection(("127.0.0.1", server.port)) as extra:
        data, seconds = received(extra, 5)
    assert not data and seconds < 2
    for connection in held:
        connection.close()

    def answers():
        try:
            return search(server)[0] == 200
        except (OSError, http.client.HTTPException):  # the five are still counted
            return False

    until(answers)


@pytest.mark.slow
def test_large_body_gets_its_answer(live):
    """The refusal is readable although the client was still sending."""
    server = live(limits={"body": 100_000})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/search", b" " * 150_000, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413 and "100,000" in json.loads(answer.read())["error"]
    connection.request("POST", "/search", RED, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200  # on the same connection


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\nhello",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_http(live_server, data):
    with socket.create_connection(("127.0.0.1", live_server.port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer, _ = received(connection, 15)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert search(live_server)[0] == 200

"""Who may ask, how often, from where; and what every answer says."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from freestyle.search.server.guard import Guard
from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.rate import TokenBuckets

RED = {"parts": [{"text": "red"}]}
TOKEN = "correct-horse-battery-staple"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_token(make_client, ids):
    client = make_client(token=TOKEN)
    for path in ("/info", "/metrics", "/openapi.json", *(f"/image/{id}" for id in ids.values())):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get(path, headers=bearer(TOKEN)).status_code == 200
    assert client.post("/search", json=RED).status_code == 401
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "é" * 9):
        headers = {"Authorization": f"Bearer {wrong}".encode("latin-1")}
        assert client.post("/search", json=RED, headers=headers).status_code == 401
    basic = {"Authorization": f"Basic {TOKEN}"}
    assert client.post("/search", json=RED, headers=basic).status_code == 401
    assert client.post("/search", json=RED, headers=bearer(TOKEN)).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/nothing").status_code == 401  # tells nothing of what there is
    assert client.get("/info", headers=bearer(TOKEN)).json()["token"]


def test_rate(make_client):
    client = make_client(limits={"rate": 0.02, "burst": 3})
    statuses = [client.post("/search", json=RED).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    answer = client.post("/search", json=RED)
    assert "wait" in answer.json()["error"] and 1 <= int(answer.headers["retry-after"]) <= 51
    assert client.get("/healthz").status_code == 200
    assert 'reason="rate"' in client.app.state.service.metrics.text().decode()


def test_buckets_forget_the_oldest_address():
    now = [0.0]
    buckets = TokenBuckets(rate=1, burst=2, addresses=100, clock=lambda: now[0])
    for number in range(1000):
        assert buckets.wait(f"10.0.{number // 256}.{number % 256}") == 0
    assert len(buckets) == 100
    assert buckets.wait("10.0.3.231") == 0  # the last one has one left
    assert buckets.wait("10.0.3.231") == pytest.approx(1)
    now[0] = 0.25
    assert buckets.wait("10.0.3.231") == pytest.approx(0.75)
    assert buckets.wait("2001:db8::1") == buckets.wait("2001:db8::ffff") == 0
    assert buckets.wait("2001:db8::abcd") > 0  # one client has a whole /64


def test_other_origins_are_shut_out_by_default(client):
    origin = {"Origin": "https://evil.example"}
    answer = client.get("/info", headers=origin)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    answer = client.post("/search", json=RED, headers=origin)
    assert answer.status_code == 403 and "--cors" in answer.json()["error"]
    assert client.post("/search", json=RED, headers={"Origin": "null"}).status_code == 403
    own = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/search", json=RED, headers=own).status_code == 200
    asked = {**origin, "Access-Control-Request-Method": "POST"}
    assert client.options("/search", headers=asked).status_code == 405


def test_origins_that_are_let_in(make_client):
    client = make_client(origins=["https://photos.example"], token=TOKEN)
    origin = {"Origin": "https://photos.example"}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = client.options("/search", headers={**origin, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://photos.example"
    answer = client.post("/search", json=RED, headers={**origin, **bearer(TOKEN)})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://photos.example"
    refused = client.post("/search", json=RED, headers=origin)  # readable by that page
    assert refused.status_code == 401 and "access-control-allow-origin" in refused.headers
    other = {"Origin": "https://photos.example.evil"}
    answer = client.post("/search", json=RED, headers={**other, **bearer(TOKEN)})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_host_names(make_client):
    client = make_client(hosts=["photos.example"])
    get = lambda host: client.get("/healthz", headers={"Host": host}).status_code
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "192.168.1.7:8000", "Photos.Example"):
        assert get(host) == 200, host
    for host in ("evil.example", "photos.example.evil.example", "127.0.0.1.evil.example", "x" * 99):
        assert get(host) == 400, host


def test_headers_of_every_answer(client):
    answers = [
        client.get("/"),
        client.get("/info"),
        client.get("/nothing"),
        client.post("/search", json=RED),
        client.post("/search", json={}),
        client.get("/healthz", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    assert client.post("/search", json=RED).headers["cache-control"] == "no-store"


def test_log_says_nothing_of_the_query(make_client, caplog, ids):
    client = make_client(log=True)
    id = ids["red/0.jpg"]
    with caplog.at_level("INFO", logger="freestyle.serve"):
        client.post("/search", json={"parts": [{"text": "a secret wish"}]})
        client.get(f"/image/{id}")
        client.get("/a/secret/path?with=query")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "POST /search 200",
        "GET /image 200",
        "GET other 404",
    ]


def test_failure_is_not_shown(make_client, caplog):
    client = make_client()

    def fail(*_, **__):
        raise RuntimeError("the secret of the house")

    client.searcher.search_many = fail
    answer = client.post("/search", json=RED)
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "the secret of the house" in caplog.text


def test_client_that_takes_no_answer_is_given_up():
    metrics = Metrics()
    guard = Guard(PlainTextResponse("answer"), limits=Limits(head_seconds=0.05), metrics=metrics)
    scope = {"type": "http", "method": "GET", "path": "/info", "headers": [], "client": None}

    async def never(_):
        await asyncio.sleep(60)

    async def main():
        async with asyncio.timeout(5):
            await guard(scope, never, never)

    asyncio.run(main())
    assert 'requests_total{route="/info",status="499"} 1.0' in metrics.text().decode()

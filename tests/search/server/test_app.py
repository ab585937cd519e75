"""The routes: what is asked in either form is answered, and whatever else is refused in words."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import gallery
import pytest
from gallery import draw, encode

from freestyle.errors import UserError
from freestyle.search.searcher import Part
from freestyle.search.server import receiving, running
from freestyle.search.server.app import create_app
from freestyle.search.server.limits import Limits
from freestyle.search.server.refusal import Refusal


def ask(client, *parts, **values):
    return client.post("/search", json={"parts": list(parts), **values})


def refused(answer, status):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    sentence = answer.json()["error"]
    assert sentence and "\n" not in sentence and "Traceback" not in sentence
    return sentence


def colours(answer):
    assert answer.status_code == 200, answer.text
    return [hit["metadata"]["folder"] for hit in answer.json()["hits"]]


def test_a_text_counts_with_its_phrases():
    from freestyle.search.server.receiving import Received
    from freestyle.search.server.schema import SearchRequest
    from freestyle.search.server.service import load_of

    parts = [{"text": "a red car, at night, in snow"}, {"photo": "0" * 20}, {"text": "a cat"}]
    request = SearchRequest.model_validate({"parts": parts})
    assert load_of(Received(request, {})) == 4 + 1 + 1


# -- answers -----------------------------------------------------------------------------------


def test_text(client, ids):
    answer = ask(client, {"text": "something red"}, top=4)
    assert colours(answer) == ["red"] * 4
    values = answer.json()
    assert values["photos"] == len(ids)
    assert {"embed", "nearest", "rerank", "total"} <= set(values["milliseconds"])
    hit = values["hits"][0]
    assert set(hit) == {"id", "score", "parts", "reason", "metadata"}
    assert len(hit["parts"]) == 1 and hit["reason"] == "something red"
    assert hit["id"] in ids.values()
    reading = {"kind": "text", "name": "something red", "styles": {}, "place": None}
    assert values["parts"] == [reading]


def test_where_photos_lie_stays_here(client, photos):
    answer = ask(client, {"text": "red"}, top=20)
    assert str(photos[0]) not in answer.text
    assert not {"origin", "offset"} & set(answer.json()["hits"][0]["metadata"])


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_picture_in_json(client, prefix):
    image = prefix + base64.b64encode(encode(draw("blue", 9))).decode()
    answer = ask(client, {"image": image, "name": "sketch"}, top=3)
    assert colours(answer) == ["blue"] * 3
    part = answer.json()["parts"][0]
    assert part["kind"] == "image" and part["name"] == "sketch" and part["styles"]["art"] == 0.75


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_picture_in_a_form(client, kind):
    request = {"parts": [{"file": "a"}, {"text": "blue", "weight": 0.1}], "top": 3}
    picture = encode(draw("green", 9), kind)
    answer = client.post(
        "/search",
        data={"request": json.dumps(request)},
        files={"a": ("../../etc/passwd", picture, "text/html")},
    )
    assert colours(answer) == ["green"] * 3
    assert [part["kind"] for part in answer.json()["parts"]] == ["image", "text"]


def test_same_as_the_searcher_in_python(client):
    """What arrives as a file is found as `freestyle search` finds it."""
    picture = draw("purple", 5, side=700)
    answer = ask(client, {"image": base64.b64encode(encode(picture)).decode()}, {"text": "blue"})
    own = client.searcher.search(Part(image=picture), Part(text="blue")).to_dict()
    hits = answer.json()["hits"]
    assert [hit["id"] for hit in hits] == [hit["id"] for hit in own["hits"]]
    assert [hit["score"] for hit in hits] == [hit["score"] for hit in own["hits"]]


def test_more_like_this_but(client, ids):
    answer = ask(client, {"photo": ids["red/1.jpg"]}, top=3)
    assert colours(answer) == ["red"] * 3
    assert ids["red/1.jpg"] not in [hit["id"] for hit in answer.json()["hits"]]
    plain = colours(ask(client, {"text": "purple"}, top=24))
    blue = {"text": "blue", "exclude": True}
    without = colours(ask(client, {"text": "purple"}, blue, top=24))
    assert plain.index("blue") == 4 and without.index("blue") >= 8


def test_conditions(client):
    answer = ask(client, {"text": "red"}, where=["folder under green", "date >= 2022-01-01"])
    assert colours(answer) == ["green"] * 2


def test_photo_and_thumbnail(client, photos):
    folder, ids = photos
    answer = client.get(f"/image/{ids['red/1.jpg']}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert answer.content == (folder / "photos/red/1.jpg").read_bytes()
    again = client.get(
        f"/image/{ids['red/1.jpg']}", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304 and not again.content
    thumbnail = client.get(f"/thumbnail/{ids['red/1.jpg']}")
    assert thumbnail.headers["content-type"] == "image/webp"
    assert thumbnail.content[8:12] == b"WEBP"
    for answer in (again, thumbnail):
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_health_info_metrics(client, ids):
    assert client.get("/healthz").json() == {"status": "ok", "photos": len(ids)}
    info = client.get("/info").json()
    assert info["photos"] == len(ids) and info["encoder"] == "colours"
    assert info["styles"] == ["sketch", "art"] and not info["token"]
    assert info["columns"]["date"] == "str" and info["columns"]["width"] == "int"
    assert info["limits"]["body"] == 16 * 2**20 and info["limits"]["parts"] == 8
    ask(client, {"text": "red"})
    ask(client, {"text": ""})
    client.get("/image/" + "0" * 20)
    text = client.get("/metrics").text
    for line in (
        'freestyle_requests_total{route="/search",status="200"}',
        'freestyle_requests_total{route="/image",status="404"}',
        'freestyle_rejected_total{reason="value"}',
        'freestyle_stage_seconds_count{stage="embed"}',
        "freestyle_queue_parts 0.0",
        f"freestyle_photos {len(ids)}.0",
    ):
        assert line in text, line


def test_openapi_tells_both_forms(client):
    schema = client.get("/openapi.json").json()
    assert "SearchRequest" in schema["components"]["schemas"]
    search = schema["paths"]["/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    answer = search["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert answer.endswith("/SearchAnswer")
    references = set(json.dumps(schema).split('"#/components/schemas/')[1:])
    for name in {reference.partition('"')[0] for reference in references}:
        assert name in schema["components"]["schemas"]
    assert client.get("/docs").status_code == 404  # it would load another host's scripts


def test_page(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    tag = answer.headers["etag"]
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/static/index.html").content == answer.content


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, status, word",
    [
        ({}, 422, "parts"),
        ({"parts": []}, 422, "parts"),
        ({"parts": [{}]}, 422, "exactly one"),
        ({"parts": [{"text": "a", "photo": "0" * 20}]}, 422, "exactly one"),
        ({"parts": [{"text": " \n"}]}, 422, "empty"),
        ({"parts": [{"text": "a" * 1001}]}, 413, "1000"),
        ({"parts": [{"text": "a"}] * 9}, 413, "8"),
        ({"parts": [{"text": 5}]}, 422, "parts.0.text"),
        ({"parts": [{"text": "a", "wieght": 1}]}, 422, "unknown"),
        ({"parts": [{"text": "a", "weight": -1}]}, 422, "weight"),
        ({"parts": [{"text": "a", "weight": 1e300}]}, 422, "weight"),
        ({"parts": [{"text": "a", "weight": "1"}]}, 422, "weight"),
        ({"parts": [{"text": "a", "weight": 0}]}, 422, "weight"),
        ({"parts": [{"text": "a", "exclude": True}]}, 422, "exclude"),
        ({"parts": [{"text": "a"}], "top": 0}, 422, "top"),
        ({"parts": [{"text": "a"}], "top": 201}, 422, "200"),
        ({"parts": [{"text": "a"}], "top": 2.5}, 422, "top"),
        ({"parts": [{"text": "a"}], "rerank": 501}, 422, "500"),
        ({"parts": [{"text": "a"}], "where": ["a = 1"] * 9}, 413, "8"),
        ({"parts": [{"text": "a"}], "where": ["a" * 301]}, 413, "300"),
        ({"parts": [{"text": "a"}], "where": ["nothing = 1"]}, 422, "nothing"),
        ({"parts": [{"text": "a"}], "where": ["origin = x"]}, 422, "origin"),
        ({"parts": [{"photo": "../../etc/passwd"}]}, 422, "photo"),
        ({"parts": [{"photo": "0" * 20}]}, 422, "photo"),
        ({"parts": [{"image": "no base64!"}]}, 422, "base64"),
        ({"parts": [{"image": "data:text/html;base64,PGI+"}]}, 422, "base64"),
        ({"parts": [{"image": "https://example.org/a.png"}]}, 422, "base64"),
        ({"parts": [{"image": base64.b64encode(b"<svg/>").decode()}]}, 415, "JPEG"),
        ({"parts": [{"file": "a"}]}, 422, "file"),
    ],
)
def test_values_out_of_range(client, values, status, word):
    assert word in refused(client.post("/search", json=values), status)


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"parts": [{"text": "a", "weight": NaN}]}', 422),
        (b'{"parts": [{"text": "a", "weight": Infinity}]}', 422),
        (b'{"parts": [{"text": "a", "weight": 1e999}]}', 422),
        (b'{"parts": [{"text": "\\ud800"}]}', 400),
        (b"[" * 100_000, 400),
        (b'{"parts":' * 5000 + b"1" + b"}" * 5000, 400),
        (b"null", 422),
    ],
)
def test_bodies_that_are_no_queries(client, body, status):
    refused(client.post("/search", content=body, headers=JSON), status)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_other_content_types(client, kind):
    body = b'{"parts": [{"text": "a"}]}'
    refused(client.post("/search", content=body, headers={"Content-Type": kind}), 415)


def test_forms_that_are_no_queries(client):
    picture = encode(draw("red"))
    request = json.dumps({"parts": [{"file": "a"}]})
    post = lambda **form: client.post("/search", **form)
    refused(post(files={"a": picture}), 422)
    refused(post(files={"b": picture}, data={"request": request}), 422)
    refused(post(files={"a": picture}, data={"request": request, "more": "x"}), 413)
    refused(post(files=[("a", picture), ("a", picture)], data={"request": request}), 422)
    many = {f"f{i}": picture for i in range(9)}
    refused(post(files=many, data={"request": request}), 413)
    kind = {"Content-Type": "multipart/form-data"}
    refused(post(content=b"--x\r\n", headers=kind), 400)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(post(content=b"--x\r\nnonsense\r\n--x--", headers=kind), 400)


@pytest.mark.parametrize("value", [b"1", b"{}", b'{"text": "a"}', b'"a": 0'])
def test_millions_of_values_are_not_parsed(client, monkeypatch, value):
    """Each would cost a complaint of its own: seconds and gigabytes."""
    parsed = []
    whole = receiving.parse
    monkeypatch.setattr(receiving, "parse", lambda text: parsed.append(len(text)) or whole(text))
    fewer = b'{"parts": [%s]}' % b",".join([value] * 300)
    answer = client.post("/search", content=fewer, headers=JSON)
    refused(answer, 400 if b":" in value and value[:1] != b"{" else 413)
    assert len(parsed) == 1
    many = b'{"parts": [%s]}' % b",".join([value] * 1_000_000)
    assert "too many values" in refused(client.post("/search", content=many, headers=JSON), 413)
    form = {"data": {"request": many[:1_000_000]}, "files": {"a": b"x"}}
    assert "too many values" in refused(client.post("/search", **form), 413)
    assert len(parsed) == 1


def test_largest_query_is_parsed(client):
    limits = Limits()
    text = "," * limits.text
    parts = [{"text": text, "weight": 1.0, "exclude": False, "name": "," * 100}] * limits.parts
    where = ["caption = " + "," * (limits.condition - 10)] * limits.conditions
    assert ask(client, *parts, where=where, top=5, rerank=5).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"parts": [{"txt": "red"}]}, "parts.0: a field is unknown: use text, image, file, photo"),
        ({"parts": [{"text": "red"}], "to": 3}, "the query: a field is unknown: use parts, top"),
        ({"parts": [{"photo": "../a"}]}, "parts.0.photo: it is no photo's id: take one from"),
    ],
)
def test_a_wrong_field_is_told_with_the_right_ones(body, told):
    with pytest.raises(Refusal) as refusal:
        receiving.parse(json.dumps(body))
    assert refusal.value.status == 422 and refusal.value.sentence.startswith(told)


def test_after_a_refusal_no_other_picture_is_decoded(make_client, monkeypatch):
    """Else many requests of one bad and many slow pictures would make a queue without end."""
    client = make_client()
    ended = []

    async def decode(data):
        if data == b"bad":
            raise Refusal(415, "no picture", "picture_format")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(data)

    monkeypatch.setattr(client.app.state.service.decoder, "decode", decode)
    images = [base64.b64encode(data).decode() for data in (b"slow", b"bad", b"last")]
    refused(ask(client, *({"image": image} for image in images)), 415)
    assert sorted(ended) == [b"last", b"slow"]


def test_body_too_large(make_client):
    client = make_client(limits={"body": 10_000})
    body = json.dumps({"parts": [{"text": "a"}]}).encode() + b" " * 10_000
    refused(client.post("/search", content=body, headers=JSON), 413)
    chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))  # no Content-Length
    refused(client.post("/search", content=chunks, headers=JSON), 413)
    assert ask(client, {"text": "red"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/image/..%2f..%2fetc%2fpasswd",
        "/image/%2fetc%2fpasswd",
        "/image/" + "0" * 20,
        "/image/" + "A" * 20,
        "/image/0%00",
        "/thumbnail/../../etc/passwd",
        "/thumbnail/" + "f" * 19,
        "/static/../server/app.py",
        "/static/..%2f..%2fserver%2fapp.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/",
        "/etc/passwd",
    ],
)
def test_paths_that_lead_nowhere(client, path):
    refused(client.get(path), 404)


def test_methods(client):
    refused(client.get("/search"), 405)
    refused(client.post("/healthz"), 405)
    refused(client.options("/search"), 405)


def test_server_that_does_not_start_says_why(photos, monkeypatch):
    app = create_app(gallery.open_searcher(photos[0]), decoders=1)

    async def fail():
        raise UserError("no process can be started: raise the limit")

    monkeypatch.setattr(app.state.service.decoder, "start", fail)
    with pytest.raises(UserError, match="raise the limit"):
        running.serve(app, running.listen("127.0.0.1", 0), Limits())


# -- originals that are not what they were -----------------------------------------------------


def test_original_that_has_changed(make_client, tmp_path):
    ids = gallery.fill(tmp_path, each=1)
    from starlette.testclient import TestClient

    secret = tmp_path / "secret.jpg"
    with TestClient(
        create_app(gallery.open_searcher(tmp_path)), base_url="http://localhost"
    ) as client:
        get = lambda colour: client.get(f"/image/{ids[f'{colour}/0.jpg']}")
        file = lambda colour: tmp_path / "photos" / colour / "0.jpg"
        assert get("red").status_code == 200
        size = file("red").stat().st_size
        secret.write_bytes(encode(draw("black"), "JPEG")[:2] + bytes(size - 2))
        file("red").unlink()
        file("red").symlink_to(secret)  # turned elsewhere, of the same size
        refused(get("red"), 404)
        file("blue").write_bytes(b"root:x:0:0" * 100)
        refused(get("blue"), 404)
        status = file("green").stat()
        file("green").write_bytes(b"x" * status.st_size)  # no picture, in the same clothes
        os.utime(file("green"), ns=(status.st_atime_ns, status.st_mtime_ns))
        refused(get("green"), 404)
        file("yellow").unlink()
        os.mkfifo(file("yellow"))
        refused(get("yellow"), 404)
        file("black").unlink()
        refused(get("black"), 404)
        assert client.get(f"/thumbnail/{ids['black/0.jpg']}").status_code == 200
        assert get("purple").status_code == 200

"""Words, pictures, weights, answers: what the page asks and what it makes of the answer."""

import base64
import json
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATA = Path(__file__).parents[3] / "data/emoji"
CAR, PIZZA = DATA / "images/1f697.webp", DATA / "images/1f355.webp"


def test_words_not_and_filter(visit):
    it = visit()
    page = it.page
    page.keyboard.press("/")
    page.keyboard.type("a red car")
    assert it.names()[0] == "automobile"
    assert page.locator("#timing").inner_text().startswith("best 24 of ")
    it.until("document.getElementById('announce').textContent.includes('automobile')")
    assert page.locator("#announce").inner_text() == "24 photos found, best: automobile"
    label = page.locator(".tile").first.get_attribute("aria-label")
    assert label.startswith("1: automobile, score 0.") and "found by words" in label

    page.fill("#text", "a heart")
    hearts = it.names()
    assert set(hearts[:4]) >= {"red heart", "blue heart"}
    page.fill("#not", "blue")
    it.settled()
    assert it.searches[-1]["parts"] == [
        {"text": "a heart", "weight": 1, "exclude": False, "name": "text"},
        {"text": "blue", "weight": 0.5, "exclude": True, "name": "not"},
    ]
    page.get_by_role("slider", name="Weight of “blue”").press("End")
    fewer = it.names()
    assert "red heart" in fewer[:3]
    assert "blue heart" not in fewer or fewer.index("blue heart") > hearts.index("blue heart")

    page.click("#filter-button")
    page.fill("#where", "folder under faces")
    page.fill("#not", "")
    assert set(hearts).isdisjoint(it.names()) or "red heart" not in it.names()
    assert it.searches[-1]["where"] == ["folder under faces"]
    it.expected = ("422",)
    page.fill("#where", "colour under faces")
    it.settled()
    page.wait_for_selector("#banner:visible")
    sentence = page.locator("#banner-text").inner_text()
    assert "colour" in sentence and sentence.endswith(".")
    page.fill("#where", "folder under things")
    assert "red heart" in it.names()
    assert page.locator("#banner").is_hidden()


def test_what_cannot_be_asked_is_explained(visit):
    it = visit()
    page = it.page
    lack = page.locator("#lack")
    assert lack.is_hidden()
    page.fill("#not", "people")
    it.settled()
    assert lack.is_visible() and "only what it should not show" in lack.inner_text()
    it.until("document.getElementById('announce').textContent.includes('should not show')")
    page.fill("#text", "a red car")
    assert it.names()[0] == "automobile" and lack.is_hidden()
    page.get_by_role("slider", name="Weight of “a red car”").press("Home")
    it.settled()
    assert lack.inner_text() == "All weights are 0: raise one."
    page.get_by_role("button", name="Remove “a red car”").press("Enter")
    it.has_parts(1)
    assert page.evaluate("document.activeElement.id") == "parts"
    page.fill("#not", "")
    page.click("#filter-button")
    page.fill("#where", "folder under faces")
    it.settled()
    assert "only a filter" in lack.inner_text()
    page.fill("#where", "")
    it.settled()
    assert lack.is_hidden() and page.locator("#empty").is_visible()


def test_choose_drop_and_paste_pictures(visit):
    it = visit()
    page = it.page
    page.set_input_files("#file", str(CAR))
    it.has_parts(1)
    assert it.names()[0] == "automobile"
    assert it.parts() == ["1f697.webp"]
    page.get_by_role("button", name="Remove 1f697.webp").click()
    it.settled()
    assert page.locator("#empty").is_visible()

    give = """([kind, bytes]) => {
      const data = new DataTransfer();
      const array = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
      data.items.add(new File([array], 'given.webp', {type: 'image/webp'}));
      if (kind === 'paste') {
        document.dispatchEvent(new ClipboardEvent(kind, {clipboardData: data, bubbles: true}));
        return;
      }
      for (const type of ['dragenter', 'dragover', 'drop']) {
        document.getElementById('canvas').dispatchEvent(
          new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
      }
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, base64.b64encode(PIZZA.read_bytes()).decode()])
        it.has_parts(1)
        assert it.names()[0] == "pizza", kind
        assert page.locator("#drop").is_hidden()
        if kind == "drop":
            page.get_by_role("button", name="Remove given.webp").click()

    page.set_input_files("#file", str(CAR))
    it.has_parts(2)
    it.settled()
    assert [p["name"] for p in it.searches[-1]["parts"]] == ["picture 0", "picture 1"]
    page.get_by_role("button", name="Find what is not like this picture").first.click()
    assert it.names()[0] == "automobile"
    assert [p["exclude"] for p in it.searches[-1]["parts"]] == [True, False]


def test_large_picture_is_shrunk_before_it_is_sent(visit, tmp_path):
    with Image.open(CAR) as small:
        small.resize((2400, 2400)).save(tmp_path / "large.png")
    it = visit()
    it.page.set_input_files("#file", str(tmp_path / "large.png"))
    it.has_parts(1)
    assert it.names()[0] == "automobile"
    (sent,) = it.searches[-1]["pictures"].values()
    assert sent.size == (1600, 1600)


def test_camera(visit):
    it = visit()
    page = it.page
    page.click("#camera")
    page.wait_for_selector("#camera-dialog[open]")
    it.until("document.getElementById('video').videoWidth > 0")
    page.click("#shoot")
    it.has_parts(1)
    assert len(it.names()) == 24 and it.parts() == ["From the camera"]
    (sent,) = it.searches[-1]["pictures"].values()
    assert min(sent.size) > 100
    assert page.evaluate("document.getElementById('video').srcObject") is None  # switched off


def test_weights_change_the_ranking(visit):
    it = visit()
    page = it.page
    page.set_input_files("#file", str(CAR))
    page.fill("#text", "pizza")
    it.has_parts(2)
    it.settled()
    slider = page.get_by_role("slider", name="Weight of 1f697.webp")
    slider.focus()
    page.keyboard.press("Home")
    assert it.names()[0] == "pizza"
    assert [part["name"] for part in it.searches[-1]["parts"]] == ["text"]
    page.keyboard.press("End")
    assert it.names()[0] == "automobile"
    assert [part["weight"] for part in it.searches[-1]["parts"]] == [1, 2]
    assert page.locator(".reason").first.inner_text() == "picture"
    assert page.locator("li:first-child .bar-part").count() == 2


def test_stale_answers_are_dropped(visit):
    it = visit()
    page = it.page
    held = []

    def hold(route):
        if b"a red car" in route.request.post_data_buffer:
            held.append(route)  # answered only after the newer search
        else:
            route.fallback()

    page.route("**/search", hold)
    page.fill("#text", "a red car")
    it.soon(lambda: len(held) == 1)
    assert page.locator("#working").is_visible()
    page.fill("#text", "pizza")
    assert it.names()[0] == "pizza"
    try:
        held[0].continue_()
    except Exception as error:  # the page gave it up, as it should
        assert "closed" in str(error) or "handled" in str(error) or "Invalid" in str(error)
    page.wait_for_timeout(600)
    assert it.names()[0] == "pizza"


def test_more_like_this_and_the_way_back(visit, shapes):
    it = visit()
    page = it.page
    page.fill("#text", "red heart")
    it.draw(shapes.circle(0.5, 0.5, 0.3))
    before = it.names()
    page.locator(".tile").first.click()
    after = it.names()
    assert before[0] not in after
    assert page.locator("#like-name").inner_text() == before[0]
    assert page.input_value("#text") == "" and it.parts() == ["This photo"]
    assert "like=" in page.url
    page.fill("#text", "blue")
    assert it.names() != after
    assert it.parts() == ["This photo", "“blue”"]
    page.reload()  # the address holds it all
    it.settled()
    assert it.parts() == ["This photo", "“blue”"]
    page.click("#back")
    assert it.names() == before
    assert page.input_value("#text") == "red heart"
    assert it.parts() == ["Drawing", "“red heart”"]
    page.go_forward()
    it.settled()
    assert it.parts() == ["This photo", "“blue”"]
    page.keyboard.press("Escape")
    assert it.names() == before


def test_address_is_a_query(visit):
    it = visit("#q=a+red+car&not=people&w=not:0.25")
    assert it.names()[0] == "automobile"
    assert it.page.input_value("#not") == "people"
    assert [part["weight"] for part in it.searches[-1]["parts"]] == [1, 0.25]
    it.page.fill("#text", "pizza")
    it.settled()
    assert it.page.url.endswith("#q=pizza&not=people&w=not%3A0.25")


def test_show_more(visit):
    it = visit("#q=food")
    assert len(it.names()) == 24
    it.page.click("#more")
    assert len(it.names()) == 72


def test_busy_server_is_asked_again(visit):
    it = visit()
    it.expected = ("503", "422", "ERR_FAILED")
    page = it.page
    answers = [503, 422]

    def refuse(route):
        if answers:
            status = answers.pop(0)
            headers = {"Retry-After": "3", "Content-Type": "application/json"}
            body = json.dumps({"error": f"refused with {status}"})
            route.fulfill(status=status, headers=headers, body=body)
        else:
            route.fallback()

    page.route("**/search", refuse)
    page.fill("#text", "pizza")
    page.wait_for_selector("#banner:visible")
    assert page.locator("#banner-text").inner_text() == "The server is busy: trying again in 3 s."
    assert page.locator("#retry").is_hidden()
    page.wait_for_selector("#retry:visible")
    assert page.locator("#banner-text").inner_text() == "Refused with 422."
    page.click("#retry")
    assert it.names()[0] == "pizza"
    assert page.locator("#banner").is_hidden()

    page.unroute("**/search")
    page.route("**/search", lambda route: route.abort())
    page.fill("#text", "a car")
    page.wait_for_selector("#banner:visible")
    assert "does not answer" in page.locator("#banner-text").inner_text()


def test_token_is_asked_for_and_sent(visit):
    it = visit()
    it.expected = ("401",)
    page = it.page
    given = []

    def guard(route):
        token = route.request.headers.get("authorization", "")
        given.append(token)
        if token == "Bearer the right one":
            route.fallback()
        else:
            body = json.dumps({"error": "a bearer token is needed"})
            route.fulfill(status=401, content_type="application/json", body=body)

    for path in ("**/info", "**/search", "**/thumbnail/*"):
        page.route(path, guard)
    page.fill("#text", "pizza")
    page.wait_for_selector("#sign-in[open]")
    assert page.locator("#token-wrong").is_hidden()
    page.fill("#token", "a wrong one")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-wrong:visible")
    page.fill("#token", "the right one")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tile")
    assert it.names()[0] == "pizza"
    it.until("document.querySelector('.frame img').naturalWidth > 0")
    assert page.locator(".frame img").first.get_attribute("src").startswith("blob:")
    it.soon(lambda: given.count("Bearer the right one") > 20)  # pictures too
    page.reload()
    assert it.names()[0] == "pizza"  # kept for the tab


def test_a_picture_that_a_busy_server_refused_comes_with_its_token_later(visit):
    it = visit()
    it.expected = ("429",)
    page = it.page
    page.evaluate("sessionStorage.setItem('freestyle-token', 'a good one')")
    refused = []

    def busy(route):
        if route.request.url in refused:
            route.fallback()
        else:
            refused.append(route.request.url)
            body = json.dumps({"error": "too many requests from this address: wait 1 s"})
            route.fulfill(status=429, content_type="application/json", body=body)

    page.route("**/thumbnail/*", busy)
    page.reload()
    page.fill("#text", "pizza")
    page.wait_for_selector(".tile")
    it.until("document.querySelector('.frame img').naturalWidth > 0")
    assert refused and page.locator(".frame img").first.get_attribute("src").startswith("blob:")

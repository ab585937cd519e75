"""Keyboard, screen readers, colour schemes, and what the page may not do."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_everything_by_keyboard(visit):
    it = visit()
    page = it.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("a face")
    it.settled()
    page.keyboard.press("Shift+Tab")
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # skip to the results
    assert focused(page).startswith("1: ")
    page.keyboard.press("ArrowRight")
    assert focused(page).startswith("2: ")
    columns = page.evaluate(
        "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
    )
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith(f"{2 + columns}: ")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert focused(page).startswith("1: ")
    page.keyboard.press("End")
    assert focused(page).startswith("24: ")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Home")
    with it.context.expect_page() as opened:
        page.keyboard.press("o")
    assert "/image/" in opened.value.url
    opened.value.close()
    page.keyboard.press("Enter")
    it.settled()
    assert page.locator("#like").is_visible()
    assert page.evaluate("document.activeElement.id") == "back"
    page.keyboard.press("Escape")
    it.settled()
    assert page.input_value("#text") == "a face"


def test_help_lists_the_shortcuts(visit):
    it = visit()
    it.page.keyboard.press("?")
    assert it.page.locator("#help").is_visible()
    assert it.page.locator("#help dt").count() >= 12
    it.page.keyboard.press("Escape")
    assert it.page.locator("#help").is_hidden()


def test_everything_has_a_name(visit):
    """Buttons, fields and pictures that a screen reader meets say what they are."""
    it = visit("#q=pizza")
    it.page.set_viewport_size({"width": 1200, "height": 900})
    it.settled()
    nameless = it.page.evaluate("""() => [...document.querySelectorAll('button, input, img')]
      .filter((e) => e.checkVisibility())
      .filter((e) => e.tagName === 'IMG' ? !e.hasAttribute('alt')
        : !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
      .map((e) => e.outerHTML)""")
    assert nameless == []
    ids = "[...document.querySelectorAll('[id]')].map((e) => e.id)"
    found = it.page.evaluate(ids)
    assert len(found) == len(set(found))
    groups = it.page.get_by_role("radiogroup")
    assert groups.count() == 3
    for name in ("Pen", "Medium", "Black"):
        assert it.page.get_by_role("radio", name=name, checked=True).count() == 1
    it.page.get_by_role("radio", name="Pen").focus()
    it.page.keyboard.press("ArrowRight")
    assert it.page.get_by_role("radio", name="Eraser", checked=True).count() == 1


def test_light_and_dark(visit):
    paper = "getComputedStyle(document.body).backgroundColor"
    pad = "getComputedStyle(document.getElementById('pad')).backgroundColor"
    light = visit(color_scheme="light").page.evaluate(paper)
    it = visit(color_scheme="dark", reduced_motion="reduce")
    page = it.page
    dark = page.evaluate(paper)
    assert dark != light
    assert page.evaluate(pad) == "rgb(255, 255, 255)"  # what is sent has a white ground
    page.click("#theme")
    assert page.evaluate(paper) == light
    page.reload()
    assert page.evaluate(paper) == light  # kept
    it.until("document.getElementById('gallery').textContent")
    page.click("#theme")
    assert page.evaluate(paper) == dark
    still = "(e) => getComputedStyle(e).animationName"
    assert page.locator("#empty").evaluate(still) == "none"  # motion is reduced
    assert visit().page.locator("#empty").evaluate(still) == "appear"


def test_empty_page_offers_examples_that_work(visit):
    it = visit()
    page = it.page
    doodles = page.locator("#doodles button")
    assert doodles.count() == 5
    page.get_by_role("button", name="A smile").click()
    assert len(it.names()) == 24 and it.parts() == ["Drawing"]
    page.click("#clear")
    it.settled()
    page.get_by_role("button", name="a red car").click()
    assert it.names()[0] == "automobile"


def test_policy_lets_nothing_foreign_or_inline_run(visit):
    it = visit()
    it.expected = ("Content Security Policy", "Content-Security-Policy")
    page = it.page
    policy = page.evaluate("fetch('./').then((r) => r.headers.get('content-security-policy'))")
    assert "'unsafe" not in policy and "*" not in policy
    page.evaluate("""() => {
      const script = document.createElement('script');
      script.textContent = 'window.broken = true';
      document.body.append(script);
      document.body.insertAdjacentHTML('beforeend', '<p style="color: red" id="styled">x</p>');
    }""")
    assert page.evaluate("window.broken") is None
    assert page.evaluate("getComputedStyle(document.getElementById('styled')).color") != (
        "rgb(255, 0, 0)"
    )

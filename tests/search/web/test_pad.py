"""The sketch pad: pointers and keys in, the picture that is asked with out."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def ink(picture):
    """Box of what is not white, as fractions (left, top, right, bottom), and the dark share."""
    dark = np.asarray(picture.convert("L")) < 128
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    side = len(dark)
    box = (columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side)
    return box, dark.mean()


def last_drawing(visit):
    visit.settled()
    return visit.searches[-1]["pictures"]["drawing"]


def test_undo_redo_clear_and_eraser(visit, shapes):
    it = visit()
    page = it.page
    assert page.locator("#empty").is_visible() and page.locator("#undo").is_disabled()
    it.draw(shapes.circle(0.5, 0.5, 0.3))
    whole = last_drawing(it)
    assert len(it.names()) == 24 and page.locator("#empty").is_hidden()
    it.draw(shapes.circle(0.5, 0.5, 0.1))
    assert ink(last_drawing(it))[1] > ink(whole)[1]
    page.click("#undo")
    assert last_drawing(it).tobytes() == whole.tobytes()
    page.click("#redo")
    assert ink(last_drawing(it))[1] > ink(whole)[1]
    page.keyboard.press("Control+z")
    assert last_drawing(it).tobytes() == whole.tobytes()
    page.keyboard.press("Control+Shift+Z")

    page.click("[data-tool=eraser]")
    page.get_by_role("radio", name="Brush").click()
    it.draw([(x / 20, 0.5 + dy) for dy in (-0.1, 0, 0.1) for x in range(2, 19)])
    erased = last_drawing(it)
    assert ink(erased)[1] < ink(whole)[1]  # the inner circle and the sides are gone
    page.click("#clear")
    it.settled()
    assert page.locator("#empty").is_visible() and not it.parts()
    page.click("#undo")
    assert last_drawing(it).tobytes() == erased.tobytes()


def test_drawing_that_is_all_erased_is_no_part(visit):
    it = visit()
    it.draw([(0.4, 0.5), (0.5, 0.5), (0.6, 0.5)])
    assert len(it.names()) == 24 and it.parts() == ["Drawing"]
    it.page.click("[data-tool=eraser]")
    it.page.get_by_role("radio", name="Brush").click()
    it.draw([(0.3, 0.5), (0.5, 0.5), (0.7, 0.5)])
    it.settled()
    assert it.parts() == [] and it.page.locator("#empty").is_visible()
    assert it.page.locator("#lack").is_hidden()
    it.page.click("#undo")
    assert len(it.names()) == 24 and it.parts() == ["Drawing"]


def test_picture_asked_with_is_the_same_wherever_it_was_drawn(visit, shapes):
    it = visit()
    pictures = []
    for x, y, r in ((0.5, 0.5, 0.4), (0.3, 0.35, 0.2)):
        it.draw(shapes.circle(x, y, r), [(x - r / 3, y)], [(x + r / 3, y)])
        pictures.append(last_drawing(it))
        it.page.click("#clear")
    for picture in pictures:
        assert picture.size == (512, 512)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getpixel((256, 256)) == (255, 255, 255)
        (left, top, right, bottom), _ = ink(picture)
        assert abs(left + right - 1) < 0.01 and abs(top + bottom - 1) < 0.01  # in the middle
        assert 0.75 < max(right - left, bottom - top) < 0.84
        crossings = np.asarray(picture.convert("L"))[100] < 128  # a row above the dots
        line = np.diff(np.flatnonzero(np.diff(crossings.astype(int))))[0] / 512
        assert 0.02 < line < 0.06  # seen aslant
    large, small = (np.asarray(p.convert("L")).astype(float) for p in pictures)
    assert np.abs(large - small).mean() < 12  # of 255


def test_resizing_redraws_from_vectors(visit, shapes):
    it = visit(viewport={"width": 1300, "height": 900})
    it.draw(shapes.circle(0.5, 0.5, 0.3))
    before = last_drawing(it)
    it.page.set_viewport_size({"width": 700, "height": 900})
    it.until("document.getElementById('canvas').width !== 400")
    it.draw([(0.5, 0.5)])
    it.page.click("#undo")
    assert last_drawing(it).tobytes() == before.tobytes()


def test_colour_width_and_pressure_reach_the_picture(visit):
    it = visit()
    it.page.get_by_role("radio", name="Red").click()
    it.page.get_by_role("radio", name="Brush").click()
    it.draw([(0.2, 0.5), (0.5, 0.5), (0.8, 0.5)])
    red, green, blue = last_drawing(it).getpixel((256, 256))
    assert red > 200 and green < 80 and blue < 80
    it.page.click("#clear")
    assert it.page.locator("#pressure").is_hidden()
    stylus = """(pressures) => {
      const canvas = document.getElementById('canvas');
      const box = canvas.getBoundingClientRect();
      const send = (type, x, pressure) => canvas.dispatchEvent(new PointerEvent(type, {
        pointerId: 7, pointerType: 'pen', isPrimary: true, bubbles: true, button: 0, buttons: 1,
        pressure, clientX: box.left + x * box.width, clientY: box.top + box.height / 2,
      }));
      send('pointerdown', 0.2, pressures[0]);
      pressures.forEach((p, i) => send('pointermove', 0.2 + 0.6 * i / (pressures.length - 1), p));
      send('pointerup', 0.8, 0);
    }"""
    it.page.get_by_role("radio", name="Black").click()
    it.page.get_by_role("radio", name="Medium").click()
    it.page.evaluate(stylus, [0.5, 0.5])
    it.page.click("#pressure")
    it.page.click("#clear")
    it.page.evaluate(stylus, [i / 20 for i in range(1, 21)])
    dark = np.asarray(last_drawing(it).convert("L")) < 128
    columns = np.flatnonzero(dark.any(axis=0))
    thin, thick = dark[:, columns[30]].sum(), dark[:, columns[-30]].sum()
    assert thick > 1.8 * thin > 0


def test_drawing_by_keyboard(visit):
    it = visit()
    page = it.page
    page.keyboard.press("d")
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.keyboard.press("Space")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        for _ in range(5):
            page.keyboard.press(key)
    page.keyboard.press("Space")
    (left, top, right, bottom), _ = ink(last_drawing(it))
    assert abs((right - left) - (bottom - top)) < 0.05  # a square
    assert len(it.names()) == 24
    page.keyboard.press("Delete")
    it.settled()
    assert page.locator("#empty").is_visible()


def test_touch_draws_on_a_phone_without_overflow(visit, shapes):
    it = visit(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True,
        device_scale_factor=2,
    )  # fmt: skip
    page = it.page
    touch = it.context.new_cdp_session(page)
    box = page.locator("#canvas").bounding_box()
    points = [
        {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
        for x, y in shapes.circle(0.5, 0.5, 0.3)
    ]

    def send(kind, at):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    send("touchStart", points[:1])
    for point in points[1:]:
        send("touchMove", [point])
    send("touchEnd", [])
    (left, _, right, _), _ = ink(last_drawing(it))
    assert 0.7 < right - left < 0.85
    page.fill("#text", "a red car")
    page.click("#filter-button")
    it.settled()
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.evaluate(width) <= 360
    assert page.evaluate("scrollY") == 0
    page.click("#peek")  # the best photos look in from below the pad
    it.until("scrollY > 200")
    it.until("document.getElementById('peek').hidden")
    page.locator(".tile").first.tap()
    it.settled()
    assert page.locator("#like").is_visible()
    assert page.evaluate(width) <= 360
    page.click("#help-button")
    assert page.evaluate(width) <= 360

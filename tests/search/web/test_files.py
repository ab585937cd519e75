"""The page's files, without a browser: nothing inline, no other host, nothing missing."""

import re
from pathlib import Path

WEB = Path(__file__).parents[3] / "freestyle/search/web"


def test_no_inline_code_and_no_other_host():
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for file in WEB.iterdir():
        text = re.sub(r"http://www\.w3\.org/\S+", "", file.read_text())  # names, not addresses
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), file.name
        assert not re.search(r"\beval\(|new Function\(", text), file.name


def test_everything_named_is_there():
    names = {file.name for file in WEB.iterdir()}
    page = (WEB / "index.html").read_text()
    assert set(re.findall(r'"static/([^"#]+)["#]', page)) <= names
    icons = set(re.findall(r'<symbol id="([^"]+)"', (WEB / "icons.svg").read_text()))
    assert set(re.findall(r'icons\.svg#([^"]+)"', page)) <= icons
    for file in WEB.glob("*.js"):
        assert set(re.findall(r'from "\./([^"]+)"', file.read_text())) <= names, file.name
    ids = set(re.findall(r'\sid="([^"]+)"', page))
    for file in WEB.glob("*.js"):
        used = set(re.findall(r'\$\("([^"]+)"\)', file.read_text()))
        assert used <= ids, (file.name, used - ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


def test_scripts_and_sheets_are_short():
    for file in (*WEB.glob("*.js"), *WEB.glob("*.css")):
        lines = file.read_text().splitlines()
        assert len(lines) <= 300, file.name
        assert max(map(len, lines)) <= 100, file.name

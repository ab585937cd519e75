"""A few composed queries over drawn pictures."""

import pytest

from freestyle.datasets.composed import ComposedQuery


@pytest.fixture
def asked(tmp_path, make_picture):
    """Three composed queries with different references."""
    found = []
    for number, text in enumerate(("with a hat", "blue", "without wheels")):
        path = tmp_path / f"reference-{number}.png"
        make_picture(number).save(path)
        found.append(ComposedQuery(f"q{number}", path, "", text, ("t",), pair=f"p{number}"))
    return found

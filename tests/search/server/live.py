"""A server in a process of its own: ``python live.py FOLDER '{"token": ...}'``; see gallery.py.

Prints its port when it answers. ``delay`` slows the encoder, ``limits`` changes limits, and other
values go to ``create_app``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gallery import open_searcher

from freestyle.search.server import running
from freestyle.search.server.app import create_app
from freestyle.search.server.limits import Limits

if __name__ == "__main__":
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    limits = Limits(**{"rate": 0, **options.pop("limits", {})})
    logging.disable(logging.WARNING)
    listener = running.listen("127.0.0.1", 0)
    searcher = open_searcher(Path(sys.argv[1]), options.pop("delay", 0.0))
    app = create_app(searcher, limits=limits, **options)
    say = lambda: os.write(1, b"%d\n" % listener.getsockname()[1])
    running.serve(app, listener, limits, started=say)

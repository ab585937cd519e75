"""``python -m freestyle``."""

from freestyle.cli import main

raise SystemExit(main())

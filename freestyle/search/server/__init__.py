"""A search served over HTTP, safe to put on a network; no torch in here."""

"""Headings of tables that are shown in more than one place."""

MEMORISATION = ("distance to", "samples", "held-out", "samples equal to one", "P(sample closer)", "95 % interval", "p")

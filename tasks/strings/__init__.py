"""Strings of characters: windows of a text, and words of any length with an end symbol."""

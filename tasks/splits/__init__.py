"""Splits of classes into training, validation and test: committed files, and random ones."""

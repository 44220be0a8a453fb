"""The Hershey task: embedded glyphs, drawn by hand."""

from tasks.hershey.task import hershey

__all__ = ["hershey"]

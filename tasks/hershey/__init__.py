"""The Hershey task: glyphs of stroke fonts, which come with a package, in simulated handwriting."""

from tasks.hershey.task import hershey

__all__ = ["hershey"]

"""Recordings of spoken words as sequences of mu-law codes."""

from tasks.speech.task import speech

__all__ = ["speech"]

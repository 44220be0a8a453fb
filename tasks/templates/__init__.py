"""The templates task, whose optimum is known."""

from tasks.templates.task import TemplateTasks, templates

__all__ = ["TemplateTasks", "templates"]

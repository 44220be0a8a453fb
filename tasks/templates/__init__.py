"""The templates tasks, still and in motion, whose optimum is known."""

from tasks.templates.moving import MovingTemplateTasks, moving_templates
from tasks.templates.task import TemplateTasks, templates

__all__ = ["MovingTemplateTasks", "TemplateTasks", "moving_templates", "templates"]

"""Task distributions: where episodes come from.

``TASKS[name](split=..., data_root=None, seed=0, **options)`` builds one. A new task is a file in this
folder and a line here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tasks import chains, digits, emoji, films, hershey, labelled, omniglot, pens, speech, templates, transduction
from tasks.base import TaskDistribution
from tasks.chains import ChainTasks
from tasks.checks import SPLITS
from tasks.data.roots import DataError
from tasks.episodes.fixed_episodes import FixedEpisodes
from tasks.episodes.generated_episodes import GeneratedEpisodes
from tasks.episodes.stored_episodes import StoredEpisodes
from tasks.folders import folder, mirror, volumes
from tasks.images import ImageTasks
from tasks.strings import names, text, tunes
from tasks.templates import TemplateTasks
from tasks.transduction import TransductionTasks

__all__ = [
    "SPLITS",
    "TASKS",
    "ChainTasks",
    "DataError",
    "FixedEpisodes",
    "GeneratedEpisodes",
    "ImageTasks",
    "StoredEpisodes",
    "TaskDistribution",
    "TemplateTasks",
    "TransductionTasks",
    "UnknownTaskError",
]


class UnknownTaskError(KeyError):
    """No task of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Tasks(dict[str, Callable[..., TaskDistribution]]):
    def __missing__(self, name: object) -> Callable[..., TaskDistribution]:
        near = difflib.get_close_matches(str(name), self, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownTaskError(f"there is no task {name!r}; give one of {', '.join(sorted(self))}.{meant}")


TASKS = _Tasks(
    hershey=hershey.hershey,
    omniglot=omniglot.omniglot,
    digits=digits.digits,
    templates=templates.templates,
    moving_templates=templates.moving_templates,
    chains=chains.chains,
    transduction=transduction.transduction,
    emoji=emoji.emoji,
    speech=speech.speech,
    names=names.names,
    pens=pens.pens,
    films=films.films,
    text=text.text,
    tunes=tunes.tunes,
    folder=folder.folder,
    mirror=mirror.mirror,
    volumes=volumes.volumes,
    labelled=labelled.labelled,
)

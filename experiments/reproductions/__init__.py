"""Tables that one command makes: ``python -m experiments.reproduce NAME``."""

from experiments.reproductions.mirror import MIRROR, MIRROR_48
from experiments.reproductions.mixtures import MIXTURES, WITH_COUNTS
from experiments.reproductions.omniglot import OMNIGLOT
from experiments.reproductions.omniglot_28 import OMNIGLOT_28
from experiments.reproductions.omniglot_adaptation import ADAPTATION
from experiments.reproductions.omniglot_conditioning import CONDITIONING
from experiments.reproductions.omniglot_recurrent import RECURRENT
from experiments.reproductions.omniglot_stages import STAGES
from experiments.reproductions.plan import Entry, Plan
from experiments.reproductions.products import PRODUCTS
from experiments.reproductions.speech import SPEECH
from experiments.reproductions.strings import CHAINS, NAMES, TEXT, TUNES
from experiments.reproductions.volumes import FILMS, FILMS_LAST, MOVING

__all__ = ["GROUPS", "MEANS", "PLANS", "Entry", "Plan"]

PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        *(OMNIGLOT, STAGES, CONDITIONING, OMNIGLOT_28, ADAPTATION, RECURRENT, MIRROR, MIRROR_48, PRODUCTS),
        *(CHAINS, NAMES, TUNES, TEXT),
        *SPEECH,
        *(MOVING, FILMS, FILMS_LAST),
        *(MIXTURES, *WITH_COUNTS),
    )
}
GROUPS: dict[str, tuple[Plan, ...]] = {
    "strings": (CHAINS, NAMES, TUNES, TEXT),
    "speech": SPEECH,
    "volumes": (MOVING, FILMS, FILMS_LAST),
}
"""Several tables that one command makes."""

MEANS: dict[str, tuple[Plan, ...]] = {"speech": SPEECH}
"""Those of them whose tables are alike, so that they have a mean."""

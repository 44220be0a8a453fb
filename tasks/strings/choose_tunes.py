"""The split of the tunes; ``python -m tasks.strings.choose_tunes`` writes the file again."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping

from tasks.splits.committed import save_split
from tasks.splits.random_splits import drawn_shapes
from tasks.strings.abc_notation import Tune
from tasks.strings.tunes import LEAST, _texts, different_bars, read_books, texts_sha256

IN_COMMON = 0.25  # of the bars of the tune that has fewer: from then on two tunes are settings of one
TEST, VALIDATION = 0.10, 0.05  # of the tunes
_KIND = re.compile(r"--.*|\b(the|a|an|reel|jig|hornpipe|strathspey|clog|walk ?around)\b|[^a-z]")


def title_key(title: str) -> str:
    """What remains of a title without case, articles, marks and the kind of dance: "The Belles, Reel" is "belles"."""
    return _KIND.sub("", title.lower())


def themes(tunes: Mapping[str, Tune]) -> dict[str, str]:
    """The theme of each tune, named by its first: tunes with a title, or ``IN_COMMON`` of their bars, in common."""
    bars = {name: different_bars(tune) for name, tune in tunes.items()}
    first = {name: name for name in tunes}

    def root(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    holders: dict[str, list[str]] = {}
    titled: dict[str, list[str]] = {}
    for name, tune in tunes.items():
        for bar in bars[name]:
            holders.setdefault(bar, []).append(name)
        for key in {title_key(title) for title in tune.titles} - {""}:
            titled.setdefault(key, []).append(name)
    shared = Counter(pair for names in holders.values() for pair in itertools.combinations(names, 2))
    order = {name: place for place, name in enumerate(tunes)}
    alike = [pair for pair, count in shared.items() if count >= IN_COMMON * min(len(bars[name]) for name in pair)]
    alike += [pair for names in titled.values() for pair in itertools.pairwise(names)]
    for pair in alike:
        one, other = sorted(map(root, pair), key=order.__getitem__)
        first[other] = one
    return {name: root(name) for name in tunes}


def main() -> None:
    """Write ``splits/tunes.json``."""
    texts = _texts()
    tunes = {name: tune for name, tune in read_books(texts).items() if len(different_bars(tune)) >= LEAST}
    theme = themes(tunes)
    sizes = {"test": round(TEST * len(tunes)), "validation": round(VALIDATION * len(tunes))}
    split = drawn_shapes({name: ("", theme[name]) for name in tunes}, sizes, 0)
    members: dict[str, list[str]] = {}
    for name in tunes:
        members.setdefault(theme[name], []).append(name)
    save_split(
        "tunes",
        {
            "about": "Tunes as book/file and number, from music21's corpus; train is every other tune.",
            "images_sha256": texts_sha256(texts),
            "alphabet": "".join(sorted({mark for tune in tunes.values() for mark in "".join(different_bars(tune))})),
            "in_common": IN_COMMON,
            "themes": [names for names in members.values() if len(names) > 1],
            "validation": split["validation"],
            "test": split["test"],
        },
    )
    print({part: len(names) for part, names in split.items()}, len(members), "themes; the largest:")
    for names in sorted(members.values(), key=len)[-8:]:
        print(len(names), [tunes[name].titles[:1] for name in names])


if __name__ == "__main__":
    main()

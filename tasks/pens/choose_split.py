"""The split of Omniglot's strokes; ``python -m tasks.pens.choose_split`` writes the file again."""

from __future__ import annotations

from tasks.data.roots import find_data_root
from tasks.pens.drawings import STROKES, omniglot_drawings
from tasks.pens.task import drawings_sha256
from tasks.splits.committed import load_split, save_split

HELD_OUT = {"validation": ["Tagalog"], "test": ["Japanese_(katakana)", "Sanskrit"]}


def main() -> None:
    """Write ``splits/pens.json``."""
    found = omniglot_drawings([find_data_root().path / "omniglot" / name for name in STROKES])
    alphabets: dict[str, list[str]] = {}
    for name in found:
        alphabets.setdefault(name.split("/")[0], []).append(name)
    chosen = {"train": load_split("omniglot")["small1"]["train"], **HELD_OUT}
    save_split(
        "pens",
        {
            "about": "Omniglot's characters with published strokes, by alphabet; train is that of the protocol small1.",
            "characters_sha256": drawings_sha256(found),
            **{part: {alphabet: alphabets[alphabet] for alphabet in names} for part, names in chosen.items()},
        },
    )
    print({part: sum(len(alphabets[alphabet]) for alphabet in names) for part, names in chosen.items()})


if __name__ == "__main__":
    main()

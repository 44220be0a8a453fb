"""Class augmentation of words: a list once more in a spelling of its own, some of its letters exchanged throughout."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np

SPELLINGS_VERSION = 1  # raised when the same arguments begin to give other words

MOST = 24  # exchanges
RELATED = 0.5  # of exchanges are with another form of the same letter, such as s and š
VOWELS = "aeiouy\u00e6\u00f8\u0131"


def respelt(words: list[str], alphabet: str, key: str) -> list[str]:
    """The words with some letters exchanged, vowels for vowels and consonants for consonants, large ones alike.

    A function of ``key``, which decides how many exchanges there are, from 1 to ``MOST``: each of a letter of the words
    and one of ``alphabet``. Nothing is lost: different words stay different, and as long as they were.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    letters = sorted(letter for letter in alphabet if letter.islower())
    used = sorted(set("".join(words).lower()) & set(letters))
    now = {letter: letter for letter in alphabet}
    for _ in range(random.integers(1, MOST + 1) if used else 0):
        one = used[random.integers(len(used))]
        kind = [other for other in letters if (_base(other) in VOWELS) == (_base(one) in VOWELS)]
        related = [other for other in kind if _base(other) == _base(one)]
        among = related if len(related) > 1 and random.random() < RELATED else kind
        other = among[random.integers(len(among))]
        for a, b in ((one, other), (one.upper(), other.upper())):
            if a in now and b in now:  # some letters are in the alphabet as small ones alone
                now[a], now[b] = now[b], now[a]
    return ["".join(now[letter] for letter in word) for word in words]


def _base(letter: str) -> str:
    """The letter without its marks."""
    return unicodedata.normalize("NFD", letter)[0]

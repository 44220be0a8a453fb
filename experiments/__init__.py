"""Sacred experiments: verbs (train, evaluate, sample) over nouns (task, model, training)."""

import os
import warnings

# Threads that wait spin only briefly before they give their core back. With the default, 15 times as long, training
# beside one other busy process was 27 times slower than with threads that sleep at once; those cost 40 % on an idle
# machine, this 10 %. It has to be said before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# Sacred's, at every start; nothing a user could act on.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

"""Sacred experiments: verbs (train, evaluate, sample) over nouns (task, model, training)."""

import os

# Threads that wait give their core back. With the default, spinning, one other busy process on the machine makes
# training 10 to 30 times slower. It has to be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

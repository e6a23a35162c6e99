"""The lifecycle's logic: plain data in, plain data out."""

import os

# OpenMP's threads spin while they wait for one another. Beside servers on the same cores that makes the boosted trees
# up to ten times slower. It is read when OpenMP is loaded, so it is said here, before anything loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

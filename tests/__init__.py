# A package, so that `from tests import ...` finds this folder and not the `tests` that hershey-fonts installs.

#!/usr/bin/env bash
# sacred 0.8.7: a setting that a config hook of an ingredient adds reaches the run, but cannot be given a value.
#
# Expected: a config hook is the documented place for settings that are computed; what it adds is a setting like any other,
# so `with part.size=5` would take the place of the hook's value.
# Seen: without an update the run gets the hook's entry; with one the run stops with ConfigAddedError, "Added new config
# entry that is not used anywhere", as updates are compared with the entries of the config scopes alone. So the options of
# something that is chosen by name cannot be filled in by a hook; an own callable in `ingredient.configurations` can.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'sacred==0.8.7' 'setuptools==80.9.0'

cat > "$folder/hook.py" <<'PY'
import logging
import warnings

warnings.simplefilter("ignore")  # of pkg_resources, which sacred imports
logging.disable(logging.CRITICAL)

from sacred import Experiment, Ingredient
from sacred.utils import ConfigAddedError

part = Ingredient("part")


@part.config
def defaults():
    name = "small"


@part.config_hook
def fill_in(config, command_name, logger):
    return {"size": 3}


experiment = Experiment("hooked", ingredients=[part], save_git_info=False)


@experiment.main
def main(part):
    return dict(part)


plain = experiment.run().result
print("without an update:", plain)
assert plain == {"name": "small", "size": 3}
renamed = experiment.run(config_updates={"part": {"name": "large"}}).result
print("with an update of what a scope defines:", renamed)
assert renamed == {"name": "large", "size": 3}
try:
    experiment.run(config_updates={"part": {"size": 5}})
except ConfigAddedError as error:
    print("with an update of what the hook adds:", type(error).__name__)
else:
    raise SystemExit("the hook's entry could be set: this has changed")
PY
"$folder/venv/bin/python" "$folder/hook.py"
echo "as found: sacred 0.8.7 refuses a value for what a config hook adds"

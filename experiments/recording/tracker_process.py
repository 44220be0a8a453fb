"""The process beside a run that copies it to Weights & Biases or MLflow, started by ``trackers.TrackerObserver``.

It reads one event a line from its input, as JSON, and answers each with a line. An event that fails is tried again with
the next one, all in order. An input that ends without the event "end" is that of a run that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

# Nothing of a run goes to the makers of these packages unless the user says so; and a server that does not answer is
# asked twice more, not for minutes.
QUIET = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
MLFLOW_STATUS = {"COMPLETED": "FINISHED", "INTERRUPTED": "KILLED", "KILLED": "KILLED", "FAILED": "FAILED"}
EXIT_CODES = {"COMPLETED": 0, "FAILED": 1, "INTERRUPTED": 130, "KILLED": 137}
LONGEST = 6000  # characters of a parameter of MLflow's; of a tag 5,000
AT_ONCE = 100  # parameters in a call of MLflow's; of metrics 1,000


class WandbRun:
    """target: a project, or ``entity/project``. Whether there is a network at all says ``WANDB_MODE``."""

    def __init__(self, target: str) -> None:
        *entity, self.project = target.split("/", 1)
        self.entity = entity[0] if entity else None

    def start(self, event: Mapping[str, Any]) -> str:
        """Begin a run, with its files in the run's folder. Returns where it is."""
        import wandb

        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, disable_code=True)
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=event["name"],
            job_type=event["experiment"],
            dir=event["folder"],
            config={**event["config"], "run_folder": event["folder"], "command": event["command"]},
            reinit="create_new",
            settings=settings,
        )
        # Its own steps only rise, and a metric may come later than another of a higher step.
        self.run.define_metric("*", step_metric="step")
        return self.run.url or self.run.settings.sync_dir

    def parent(self, event: Mapping[str, Any]) -> None:
        """Name the run that this one goes on from."""
        self.run.config.update({"parent": event["parent"]}, allow_val_change=True)

    def metrics(self, event: Mapping[str, Any]) -> None:
        """Numbers of one step."""
        self.run.log({**event["values"], "step": event["step"]})

    def picture(self, event: Mapping[str, Any]) -> None:
        """An image file."""
        import wandb

        self.run.log({event["name"]: wandb.Image(event["path"])})

    def artifact(self, event: Mapping[str, Any]) -> None:
        """Any other file."""
        self.run.save(event["path"], base_path=str(Path(event["path"]).parent), policy="now")

    def end(self, event: Mapping[str, Any]) -> None:
        """The result and the status."""
        self.run.summary.update({"status": event["status"], **event["result"]})
        self.run.finish(exit_code=EXIT_CODES[event["status"]])


class MLflowRun:
    """target: a tracking URI, such as ``sqlite:///mlflow.db`` or ``http://localhost:5000``."""

    def __init__(self, target: str) -> None:
        self.target = target

    def start(self, event: Mapping[str, Any]) -> str:
        """Begin a run in the experiment of this name. Returns its number there."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(self.target)
        tags = {"mlflow.runName": event["name"], "run_folder": event["folder"], "command": event["command"][:LONGEST]}
        run = self.client.create_run(self._experiment(event["experiment"]), tags=tags)
        self.id: str = run.info.run_id
        params = [Param(_key(name), str(value)[:LONGEST]) for name, value in event["config"].items()]
        for first in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.id, params=params[first : first + AT_ONCE])
        return f"{self.target}, run {self.id}"

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = None
        if self.target.startswith("sqlite:///"):  # its artifacts stand beside it, not in whatever folder is current
            place = (Path(self.target.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
        return str(self.client.create_experiment(name, artifact_location=place))

    def parent(self, event: Mapping[str, Any]) -> None:
        """Name the run that this one goes on from."""
        self.client.set_tag(self.id, "parent", json.dumps(event["parent"]))

    def metrics(self, event: Mapping[str, Any]) -> None:
        """Numbers of one step."""
        from mlflow.entities import Metric

        step, when = int(event["step"]), int(event["time"] * 1000)
        found = [Metric(_key(name), value, when, step) for name, value in event["values"].items()]
        self.client.log_batch(self.id, metrics=found)

    def picture(self, event: Mapping[str, Any]) -> None:
        """An image file."""
        folder = str(Path(event["name"]).parent)
        self.client.log_artifact(self.id, event["path"], None if folder == "." else folder)

    artifact = picture

    def end(self, event: Mapping[str, Any]) -> None:
        """The result and the status."""
        from mlflow.entities import Metric

        when = int(event["time"] * 1000)
        numbers = {_key(name): value for name, value in event["result"].items() if isinstance(value, int | float)}
        found = [Metric(name, float(value), when, 0) for name, value in numbers.items()]
        for first in range(0, len(found), AT_ONCE):
            self.client.log_batch(self.id, metrics=found[first : first + AT_ONCE])
        self.client.log_dict(self.id, dict(event["result"]), "result.json")
        self.client.set_terminated(self.id, MLFLOW_STATUS[event["status"]])


def _key(name: str) -> str:
    """A name with those characters only that MLflow allows in one."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


KINDS: dict[str, Callable[[str], Any]] = {"wandb": WandbRun, "mlflow": MLflowRun}


def serve(tracker: Any, lines: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Take events until the input ends; answer each that was taken, and each time that one failed."""
    waiting: deque[dict[str, Any]] = deque()
    began = ended = False

    def take_all() -> None:
        while waiting:
            try:
                said = getattr(tracker, waiting[0]["event"])(waiting[0])
            except Exception as error:
                answer({"failed": f"{waiting[0]['event']}: {type(error).__name__}: {str(error)[:300]}"})
                return
            waiting.popleft()
            answer({"taken": 1, **({"place": said} if said else {})})

    for line in lines:
        waiting.append(event := json.loads(line))
        began, ended = began or event["event"] == "start", ended or event["event"] == "end"
        take_all()
    if began and not ended:
        waiting.append({"event": "end", "status": "KILLED", "result": {}, "time": time.time()})
        take_all()


def main(kind: str, target: str) -> None:
    """Serve the run that started this process."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    answers = cast(TextIO, os.fdopen(os.dup(1), "w", buffering=1))
    os.dup2(2, 1)  # what the packages print goes to the log

    def answer(said: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the run is gone, and its copy is finished all the same
            answers.write(json.dumps(said) + "\n")

    serve(KINDS[kind](target), iter(sys.stdin), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])

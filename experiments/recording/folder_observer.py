"""The observer of training that writes checkpoints, metrics and TensorBoard into the run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sacred.run import Run

import metadensity
from experiments.recording.flat_configs import flatten
from experiments.recording.numerics import NUMERICS, numerics
from experiments.recording.run_folder import WALL_CLOCK, RunFolder, step_of
from metadensity.files import JsonLines, write_atomically
from metadensity.training import MetaTrainer


class FolderObserver:
    """Writes metrics and checkpoints of a training run into its folder; sparse scalars go to Sacred as well.

    keep: how many of the newest states stay. The best models that these build on stay with them, so that a run which
    goes on from any of them has the best model that the run had there.
    """

    def __init__(self, folder: Path, run: Run | None, provenance: dict[str, Any], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}; at least 1 state must stay, or nothing could be resumed.")
        self.folder, self.run, self.provenance, self.keep = RunFolder(folder), run, provenance, keep
        self.records = JsonLines(folder / "metrics.jsonl")
        self.timing = JsonLines(folder / "timing.jsonl")
        from torch.utils.tensorboard import SummaryWriter  # takes a third of a second to import

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        if run is not None:
            run.info["tensorboard"] = str(folder / "tensorboard")

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Append to the JSON lines and TensorBoard; validation also to Sacred's other observers.

        What is infinite, the cost of an image of probability 0, is null in the lines and missing in the curves.
        """
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        for lines, kept in ((self.records, plain.keys() - WALL_CLOCK), (self.timing, plain.keys() & WALL_CLOCK)):
            if kept:
                lines.append({"step": step, **{name: value for name, value in plain.items() if name in kept}})
        for name, value in plain.items():
            if value is None:
                continue
            self.writer.add_scalar(name, value, step)
            if self.run is not None and name.startswith("validation/"):
                self.run.log_scalar(name, value, step)

    def checkpoint(self, trainer: MetaTrainer, best: bool) -> None:
        """Keep the newest states, and the best averaged model.

        Metrics are on the disk before the state that follows them, so that a chain of runs has no gap.
        """
        checkpoints = self.folder.checkpoints
        if best:
            path = checkpoints / f"best-{trainer.step:08d}.safetensors"
            metadensity.save(trainer.averaged_model, path, {**self.provenance, "step": trainer.step})
            write_atomically(self.folder.best, path.read_bytes())
        else:
            self.records.sync()
            provenance = {**self.provenance, NUMERICS: numerics(trainer.config.device)}
            trainer.save_state(checkpoints / f"state-{trainer.step:08d}.safetensors", provenance)
        self._tidy()

    def last_checkpoint(self, before: int) -> Path | None:
        """The newest state kept of a step below ``before``."""
        return next((path for path in reversed(self.folder.states()) if step_of(path) < before), None)

    def settings(self, config: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """Settings beside final metrics, for TensorBoard's table of runs; no run of its own, as add_hparams makes."""
        kept = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in flatten(config).items()
            if value is not None
        }
        from torch.utils.tensorboard.summary import hparams

        summaries = hparams(kept, dict.fromkeys(results, 0.0))
        writer = self.writer._get_file_writer()
        for summary in summaries:
            writer.add_summary(summary)
        for name, value in results.items():
            self.writer.add_scalar(name, value)

    def close(self) -> None:
        """Flush TensorBoard."""
        self.writer.close()

    def _tidy(self) -> None:
        for old in self.folder.states()[: -self.keep]:
            old.unlink()
        bests = self.folder.bests()
        needed = set(bests[-1:])
        for state in self.folder.states():
            needed |= set([best for best in bests if step_of(best) <= step_of(state)][-1:])
        for best in bests:
            if best not in needed:
                best.unlink()

"""Which member of an ensemble weighs how much, as text."""

from __future__ import annotations

from metadensity import FewShotModel
from metadensity.models import EnsemblePixelCNN


def weight_lines(model: FewShotModel) -> list[str]:
    """A line for each number of shots that weights are known for; none of a model that is no ensemble with weights."""
    if not isinstance(model, EnsemblePixelCNN) or model.weights == "equal":
        return []
    what = "exponents" if model.combine == "product" else "weights"
    beside = ", each task's by leave-one-out from there on" if model.weights == "leave_one_out" else ""
    names = model.member_names
    lines = [f"{what} of {', '.join(names)} ({model.combine}{beside})"]
    for shots, weights in model.weights_by_shots().items():
        lines.append(f"  {shots} shots: " + "  ".join(f"{each:.3f}" for each in weights))
    return lines

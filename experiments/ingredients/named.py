"""Named configurations: ``python -m experiments.train with omniglot attention``."""

from __future__ import annotations

from typing import Any

from experiments.recording import own_project
from metadensity.models import MODELS
from tasks import TASKS

own_project.register_or_say()  # their names are configurations as well


def _string_net(task: dict[str, Any], model: dict[str, Any], **training: Any) -> dict[str, Any]:
    """A ByteNet of a headline on strings: what they have in common, and what differs."""
    steps = training["steps"]
    return {
        "task": task,
        "model": {"name": "bytenet", "block": "relu", **model},
        "training": {
            "precision": "bfloat16",
            "tasks": 16,
            "weight_decay": 0.1,
            "average": 0.99,
            "validate_every": steps // 5,
            "checkpoint_every": steps // 5,
            **training,
        },
    }


def _text_net(model: dict[str, Any], **training: Any) -> dict[str, Any]:
    """A ByteNet of tiny Shakespeare, without supports."""
    sizes = {"dilations": [1, 2, 4, 8, 16, 32], "encoder_layers": 1, "attention": None, "penultimate": 128}
    recipe = {"queries": 1, "shots": [0], "optimizer": "muon", "learning_rate": 2e-2}
    return _string_net({"name": "text", "length": 256, "styles": 7}, {**sizes, **model}, **recipe, **training)


_NAMES = {"layers": 6, "planes": 64, "dilations": [1, 2, 4], "encoder_layers": 3, "counts": 3, "end": 154}

NAMED_CONFIGS: dict[str, dict[str, Any]] = {
    # every task and model by its name; what else some tasks set
    **{name: {"task": {"name": name}} for name in TASKS},
    **{name: {"model": {"name": name}} for name in MODELS},
    "hershey": {"task": {"name": "hershey", "size": 20}},
    "digits": {"task": {"name": "digits"}, "training": {"shots": [0, 1, 2, 4, 8]}},
    "emoji": {"task": {"name": "emoji"}, "training": {"shots": [0, 1, 3], "queries": 1}},
    "folder": {"task": {"name": "folder", "min_images": 4}, "training": {"shots": [0, 1, 3], "queries": 1}},
    "mirror": {"task": {"name": "mirror"}, "training": {"shots": [1], "queries": 1}},
    "tunes": {"task": {"name": "tunes"}, "training": {"shots": [0, 1, 4, 8], "queries": 2}},
    # options
    "dot": {"model": {"attention": "dot"}},
    "logistic": {"model": {"likelihood": "logistic"}},
    "plain_encoders": {"model": {"support_norm": False}},
    "gpu": {"training": {"device": "cuda", "graphs": True}},
    # budgets
    "fast": {
        "model": {"layers": 2, "planes": 4, "penultimate": 4},
        "training": {
            "steps": 4,
            "tasks": 2,
            "queries": 1,
            "shots": [0, 1],
            "log_every": 1,
            "validate_every": 2,
            "validation_tasks": 2,
            "checkpoint_every": 2,
        },
    },
    # make demo: under four minutes on two cores; its unconditional baseline one, and half a one to draw the glyphs
    "demo": {
        "task": {"styles": 16},
        "model": {"layers": 8, "attention": "dot"},
        "training": {
            "steps": 2500,
            "tasks": 32,
            "queries": 1,
            "shots": [1, 2, 4, 8],
            "withheld": 0.5625,
            "learning_rate": 5e-3,
            "weight_decay": 0.1,
            "validate_every": 500,
            "validation_tasks": 64,
            "checkpoint_every": 500,
        },
    },
    "demo_baseline": {"training": {"steps": 1600, "tasks": 16, "shots": [0], "withheld": 0.0, "validate_every": 400}},
    # the paper's Omniglot net on one core
    "quarter_hour": {
        "training": {
            "steps": 3500,
            "queries": 1,
            "shots": [1, 2, 4, 8],
            "withheld": 0.25,
            "learning_rate": 5e-3,
            "weight_decay": 0.1,
            "validate_every": 500,
            "checkpoint_every": 500,
        }
    },
    # templates, for ten minutes: how near their optimum a net comes
    "near_optimum": {
        "task": {"name": "templates"},
        "model": {
            "layers": 4,
            "planes": 24,
            "penultimate": 64,
            "prototypes": 1024,
            "attention": "dot",
            "patch_stride": 2,
        },
        "training": {
            "steps": 4400,
            "tasks": 64,
            "queries": 2,
            "shots": [1, 1, 2, 8],
            "withheld": 0.33,
            "optimizer": "muon",
            "learning_rate": 2e-2,
            "weight_decay": 0.0,
            "clip": 0.2,
            "average": 0.99,
            "precision": "bfloat16",
            "validate_every": 1100,
            "checkpoint_every": 1100,
        },
    },
    # strings, the headlines of python -m experiments.reproduce strings
    "chains_minutes": _string_net(
        {"name": "chains", "length": 16, "levels": 3},
        {"layers": 5, "planes": 32, "dilations": [1, 2, 4], "encoder_layers": 3},
        steps=1200,
        tasks=64,
        queries=4,
        shots=[0, 1, 2, 4],
        optimizer="muon",
        learning_rate=1e-2,
        weight_decay=0.0,
    ),
    "names_spellings": _string_net(
        {"name": "names", "styles": 31}, _NAMES, steps=2500, queries=8, shots=[0, 1, 2, 4, 8, 8]
    ),
    "names_lists": _string_net(
        {"name": "names"}, _NAMES, steps=800, queries=8, shots=[0, 1, 2, 4, 8, 8], learning_rate=1e-3
    ),
    "text_minutes": _text_net({"layers": 8, "planes": 96}, steps=800),
    "text_hour": _text_net(
        {"layers": 10, "planes": 160, "dropout": 0.15}, steps=8000, validate_every=400, checkpoint_every=400
    ),
    "tunes_minutes": _string_net(
        {"name": "tunes"},
        {**_NAMES, "end": 59},
        steps=1200,
        tasks=32,
        queries=2,
        shots=[0, 1, 4, 8, 8],
        optimizer="muon",
        learning_rate=2e-2,
    ),
    # sound, the headline of python -m experiments.reproduce speech: errors of a linear prediction, on windows
    "speech_minutes": {
        "task": {
            "name": "speech",
            "by": "speaker+word",
            "beside": "commands",
            "voices": 0.6,
            "length": 6000,
            "lengths": True,
        },
        "model": {
            "name": "wavenet",
            "layers": 9,
            "dilations": [1, 2, 4, 8, 16, 32, 64],
            "likelihood": "logistic",
            "components": 4,
            "prediction": 16,
        },
        "training": {
            "steps": 900,
            "tasks": 8,
            "queries": 2,
            "window": 512,
            "shots": [0, 1, 2, 4, 8],
            "warmup": 50,
            "average": 0.98,
            "precision": "bfloat16",
            "validate_every": 150,
            "validation_tasks": 8,
            "checkpoint_every": 150,
        },
    },
    # sound, to be recognised: which word an unheard speaker says; rivals are other words of the same speaker
    "speech_contrast": {
        "task": {"name": "speech", "by": "speaker+word", "voices": 0.6, "length": 6000, "lengths": True},
        "model": {
            "name": "wavenet",
            "layers": 9,
            "dilations": [1, 2, 4, 8, 16, 32, 64],
            "likelihood": "logistic",
            "components": 4,
            "prediction": 16,
            "attention": "dot",
        },
        "training": {
            "steps": 2400,
            "tasks": 10,
            "queries": 1,
            "window": 1024,
            "shots": [4],
            "learning_rate": 1.5e-3,
            "warmup": 30,
            "average": 0.98,
            "precision": "bfloat16",
            "contrast": 1.0,
            "contrast_temperature": 20.0,
            "rivals": 4,
            "rivals_within_group": True,
            "validate_every": 600,
            "validation_tasks": 10,
            "checkpoint_every": 300,
        },
    },
    # pairs of strings, for minutes: an aligned ByteNet at the optimum of copying and reversing; of rules, with supports
    "translate": {
        "task": {"name": "transduction"},
        "model": {
            "name": "aligned_bytenet",
            "layers": 6,
            "planes": 24,
            "encoder_layers": 6,
            "source_layers": 2,
            "unfold": [1, 0],
            "separator": -2,
            "end": -1,
        },
        "training": {
            "steps": 3000,
            "tasks": 32,
            "queries": 2,
            "shots": [0],
            "optimizer": "muon",
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "average": 0.99,
            "validate_every": 1000,
            "checkpoint_every": 500,
        },
    },
    # small images, for trainings by the dozen
    "minutes": {
        "training": {
            "steps": 800,
            "queries": 1,
            "shots": [1, 2, 4, 8],
            "withheld": 0.25,
            "learning_rate": 5e-3,
            "weight_decay": 0.1,
            "validate_every": 400,
            "checkpoint_every": 400,
        }
    },
    # 320,000 images, as many as the paper's nets saw: an hour of one core for the paper's, longer for our own
    "long": {
        "training": {
            "steps": 20000,
            "queries": 1,
            "shots": [1, 2, 4, 8],
            "withheld": 0.1,
            "learning_rate": 5e-3,
            "weight_decay": 0.1,
            "validate_every": 1000,
            "checkpoint_every": 1000,
        }
    },
    # the paper's recipe, as recalled: RMSProp 1e-4, 10,000 steps, 32 images a step
    "published": {
        "training": {
            "optimizer": "rmsprop",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup": 0,
            "decay": "none",
            "average": 0.0,
            "steps": 10000,
            "tasks": 32,
            "queries": 1,
            "shots": [1, 2, 4, 8],
        }
    },
    # closed-form-like baselines: a handful of parameters a pixel, learned in seconds
    "baseline": {
        "training": {
            "steps": 400,
            "tasks": 32,
            "queries": 4,
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "warmup": 10,
            "average": 0.95,
            "validate_every": 400,
            "checkpoint_every": 400,
        }
    },
}

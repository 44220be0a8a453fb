"""Named configurations: ``python -m experiments.train with omniglot attention``."""

from __future__ import annotations

from typing import Any

NAMED_CONFIGS: dict[str, dict[str, Any]] = {
    # tasks
    "hershey": {"task": {"name": "hershey", "size": 20}},
    "omniglot": {"task": {"name": "omniglot", "size": 26, "protocol": "paper", "shrink": "maxpool"}},
    "digits": {"task": {"name": "digits"}, "training": {"shots": [0, 1, 2, 4, 8]}},
    "templates": {"task": {"name": "templates", "size": 8}},
    # models
    "independent": {"model": {"name": "independent"}},
    "support_mean": {"model": {"name": "support_mean"}},
    "support_mixture": {"model": {"name": "support_mixture"}},
    "unconditional": {"model": {"name": "unconditional"}},
    "conditional": {"model": {"name": "conditional"}},
    "attention": {"model": {"name": "attention"}},
    "dot": {"model": {"attention": "dot"}},
    # budgets
    "fast": {
        "model": {"layers": 2, "planes": 4, "penultimate": 4},
        "training": {
            "steps": 4,
            "tasks": 2,
            "queries": 1,
            "shots": [0, 2],
            "log_every": 1,
            "validate_every": 2,
            "validation_tasks": 2,
            "checkpoint_every": 2,
        },
    },
    # make demo: under three minutes on two cores, and its unconditional baseline in under two
    "demo": {
        "model": {"layers": 8, "attention": "dot"},
        "training": {"steps": 1250, "validate_every": 250, "validation_tasks": 64, "checkpoint_every": 250},
    },
    "demo_baseline": {"training": {"steps": 800, "validate_every": 200}},
    # the paper's Omniglot net on two cores
    "quarter_hour": {"training": {"steps": 2000, "validate_every": 250, "checkpoint_every": 250}},
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

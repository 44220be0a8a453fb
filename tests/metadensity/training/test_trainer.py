"""The outer loop: it learns, averages, validates without disturbing anything, keeps the best, and stops on NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metadensity import Episode
from metadensity.episode import windows
from metadensity.models import ByteNet, ConditionalPixelCNN, UnconditionalPixelCNN, WaveNet
from metadensity.training import MetaTrainer, TrainingConfig, TrainingDivergedError
from tests.metadensity.toys import Patterns, Recorder, small_network, trainer


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "rmsprop", "learning_rate": 3e-3}, {"optimizer": "muon", "learning_rate": 5e-2}],
    ids=str,
)
def test_loss_falls(settings: dict[str, Any]) -> None:
    """Four classes of 16 pixels, a twentieth of them wrong: 0.2 nats/dim given the class, ln 2 knowing nothing."""
    source = Patterns(classes=4)
    config = {"steps": 250, "tasks": 16, "shots": (4,), "warmup": 10, "learning_rate": 1e-2, "log_every": 25} | settings
    run = MetaTrainer(small_network(planes=6), source, source, TrainingConfig(**config, validate_every=250))
    before, recorder = run.validate(), Recorder()
    run.run(recorder)
    losses = [value for _, value in recorder.series("train/nats_per_dim")]
    assert losses[0] > 0.5
    assert losses[-1] < 0.35
    ((_, after),) = recorder.series("validation/nats_per_dim_4_shots")
    assert before["validation/nats_per_dim_4_shots"] > 0.6
    assert after < 0.35


def test_what_is_logged() -> None:
    recorder = Recorder()
    run = trainer(log_every=2, steps=5, validate_every=3, checkpoint_every=4, learning_rate=0.1, decay="none", warmup=0)
    model = run.run(recorder)
    assert model is run.averaged_model
    assert run.step == 5
    assert [step for step, _ in recorder.series("train/nats_per_dim")] == [2, 4, 5]
    assert recorder.series("train/learning_rate") == [(2, 0.1), (4, 0.1), (5, 0.1)]
    assert all(value > 0 for _, value in recorder.series("train/gradient_norm"))
    assert all(value > 0 for _, value in recorder.series("train/images_per_second"))
    assert [step for step, _ in recorder.series("validation/cautious")] == [3, 5]
    for shots in (0, 1, 3):
        assert len(recorder.series(f"validation/nats_per_dim_{shots}_shots")) == 2
    assert [step for step, best in recorder.checkpoints if not best] == [4, 5]
    assert all(type(value) is float for _, values in recorder.seen for value in values.values())


def test_logged_loss_is_the_mean_since_the_last_line() -> None:
    every, second = Recorder(), Recorder()
    trainer(validate=False).run(every)
    trainer(validate=False, log_every=2).run(second)
    losses = [value for _, value in every.series("train/nats_per_dim")]
    means = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert [value for _, value in second.series("train/nats_per_dim")] == pytest.approx(means, abs=1e-12)


def test_shots_are_a_pure_function_of_seed_and_step() -> None:
    run, again, other = (trainer(shots=(0, 1, 2, 4), seed=seed) for seed in (5, 5, 6))
    drawn = [run.shots_of(step) for step in range(800)]
    assert [again.shots_of(step) for step in reversed(range(800))] == drawn[::-1]
    assert [other.shots_of(step) for step in range(800)] != drawn
    for shots in (0, 1, 2, 4):  # each a quarter of the time; 5 standard errors
        assert abs(drawn.count(shots) - 200) < 5 * math.sqrt(150)


@pytest.mark.parametrize(("withheld", "without"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.99, 3)])
def test_supports_are_withheld_from_a_part_of_the_tasks(withheld: float, without: int) -> None:
    """Of four tasks the first ones are scored with no support; one at least keeps its own."""
    run = trainer(validate=False, withheld=withheld, tasks=4)
    episode = Patterns(classes=4).episode(0, 4, 3, 2)
    each = torch.stack(
        [run.model(episode.support[: 0 if task < without else 3]).log_prob(episode.query)[:, task] for task in range(4)]
    )
    assert run.loss(episode).item() == pytest.approx(-each.mean().item() / 16, rel=1e-5)
    assert run.loss(episode.with_shots(0)).item() == pytest.approx(
        -run.model(episode.support[:0]).log_prob(episode.query).mean().item() / 16, rel=1e-5
    )


def test_training_asks_for_the_episodes_of_its_steps() -> None:
    run = trainer(validate=False)
    asked: list[tuple[int, int, int, int]] = []

    class Spy(Patterns):
        def episode(self, *arguments: int) -> Any:
            asked.append(arguments)  # type: ignore[arg-type]
            return super().episode(*arguments)

    run.train = Spy()
    run.run()
    assert asked == [(step, 4, run.shots_of(step), 2) for step in range(6)]


def test_training_is_a_function_of_its_seeds_alone() -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(weights(trainer().run()))
    assert torch.equal(*results)


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_the_average_by_hand(decay: float) -> None:
    run, states = trainer(validate=False, average=decay), []
    run.optimizer.register_step_post_hook(lambda *_: states.append(weights(run.model).double()))
    run.run()
    mean = states[0]
    for n, state in enumerate(states[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        mean = kept * mean + (1 - kept) * state
    torch.testing.assert_close(weights(run.averaged_model).double(), mean, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(mean, states[-1], atol=1e-4), "the average is the last state, which tests nothing"


def test_without_average_the_model_itself_is_validated_and_returned() -> None:
    run = trainer(average=0.0)
    assert run.run() is run.model


def test_validation_disturbs_nothing() -> None:
    often, never = trainer(validate_every=1), trainer(validate=False)
    often.run()
    never.run()
    assert torch.equal(weights(often.model), weights(never.model))
    assert torch.equal(weights(often.averaged_model), weights(never.averaged_model))
    state, mode = torch.get_rng_state(), often.averaged_model.training
    assert often.validate() == often.validate(), "validation scores other episodes each time"
    assert torch.equal(state, torch.get_rng_state())
    assert often.averaged_model.training is mode


@pytest.mark.parametrize("tasks", [4, 20])
def test_validation_numbers(tasks: int) -> None:
    """Against a plain loop, whatever the batches of training: mean over shots, and the upper ends of the intervals."""
    run = trainer(validation_tasks=40, tasks=tasks)
    values = run.validate()
    for shots in (0, 1, 3):
        nats = []
        for index in range(3):
            episode = Patterns(seed=1).episode(index, 16, 3, 2)
            with torch.no_grad():
                nats.append(-run.averaged_model.eval()(episode.support[:shots]).log_prob(episode.query) / 16)
        expected = float(torch.stack(nats).mean())
        assert values[f"validation/nats_per_dim_{shots}_shots"] == pytest.approx(expected, abs=1e-6)
    mean = sum(values[f"validation/nats_per_dim_{shots}_shots"] for shots in (0, 1, 3)) / 3
    assert values["validation/nats_per_dim"] == pytest.approx(mean)
    assert values["validation/cautious"] > mean


def test_the_best_is_chosen_by_the_cautious_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean says step 2 is best, the upper end of the interval says steps 1, 3 and 5 each beat all before."""
    run, recorder = trainer(validate_every=1, steps=6, checkpoint_every=100), Recorder()
    means, ends = iter([0.5, 0.1, 0.4, 0.4, 0.4, 0.4]), iter([0.6, 0.9, 0.5, 0.5, 0.45, math.inf])
    monkeypatch.setattr(
        run, "validate", lambda: {"validation/nats_per_dim": next(means), "validation/cautious": next(ends)}
    )
    run.run(recorder)
    assert [step for step, best in recorder.checkpoints if best] == [1, 3, 5]
    assert run.best == 0.45


def test_validation_without_an_interval_still_keeps_a_best() -> None:
    """One class alone has no interval; the first validation is the best until one has."""
    run, recorder = trainer(), Recorder()
    run.validation = Patterns(seed=1, classes=1)
    run.run(recorder)
    assert (3, True) in recorder.checkpoints


def poison(run: MetaTrainer, step: int) -> None:
    """Make a weight NaN once ``step`` updates are done."""

    def hook(*_: Any) -> None:
        if run.step == step - 1:
            run.model.network.head.logits.bias.data[0] = math.nan  # type: ignore[union-attr]

    run.optimizer.register_step_post_hook(hook)


def test_nan_stops_training(tmp_path: Path) -> None:
    run, recorder = trainer(validate=False, learning_rate=0.25), Recorder(kept=tmp_path / "last.safetensors")
    poison(run, 2)
    message = rf"Step 2: the loss is nan nats/dim.*{recorder.kept}.*Lower learning_rate \(now 0.25\).*warmup.*float32"
    with pytest.raises(TrainingDivergedError, match=message):
        run.run(recorder)
    assert run.step == 2
    assert recorder.series("train/nats_per_dim")[-1][0] == 2, "the line of the bad step was logged"


def test_nan_before_any_checkpoint() -> None:
    run = trainer(validate=False)
    poison(run, 1)
    with pytest.raises(TrainingDivergedError, match=r"Step 1: .*none, as none was kept yet"):
        run.run(Recorder())


def test_nan_in_the_gradient_alone_is_caught() -> None:
    run = trainer(validate=False)
    run.model.network.head.logits.bias.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[union-attr]
    before = weights(run.model).clone()
    with pytest.raises(TrainingDivergedError, match="gradient norm nan"):
        run.run()
    assert torch.equal(before, weights(run.model)), "the bad gradient was applied"


def test_gradients_are_clipped() -> None:
    norms: list[float] = []
    for clip in (1e-3, 0.0):
        run = trainer(validate=False, clip=clip, steps=1)
        parameters = list(run.model.parameters())
        run.optimizer.register_step_pre_hook(
            lambda *_, p=parameters: norms.append(
                float(torch.cat([w.grad.flatten() for w in p if w.grad is not None]).norm())
            )
        )
        run.run()
    assert norms[0] == pytest.approx(1e-3, rel=1e-2)
    assert norms[1] > 1e-2


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"channels_last": True}], ids=str)
def test_faster_ways_give_nearly_the_same_loss(settings: dict[str, Any]) -> None:
    """bfloat16 within 0.01 nats/dim over the run, another memory format within rounding."""
    plain, fast = Recorder(), Recorder()
    trainer(steps=10, validate_every=10).run(plain)
    model = trainer(steps=10, validate_every=10, **settings).run(fast)
    tolerance = 0.01 if "precision" in settings else 1e-5
    for name in ("train/nats_per_dim", "validation/nats_per_dim"):
        a, b = ([value for _, value in recorder.series(name)] for recorder in (plain, fast))
        assert b == pytest.approx(a, abs=tolerance)
        assert a != b or "channels_last" in settings, "autocast did nothing"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("settings", [{}, {"optimizer": "rmsprop"}, {"withheld": 0.5}, {"clip": 0.0}], ids=str)
def test_what_graphs_record_is_the_plain_update(settings: dict[str, Any]) -> None:
    """Here without a graph, in the same order; tests/metadensity/test_cuda.py records it where there is a GPU."""
    plain, recorded = (trainer(steps=12, validate_every=6, average=0.9, **settings) for _ in range(2))
    recorded._graphed = recorded._graph_step  # type: ignore[assignment]
    seen = [Recorder(), Recorder()]
    for run, recorder in zip((plain, recorded), seen, strict=True):
        run.run(recorder)
    for name in ("train/nats_per_dim", "train/gradient_norm", "train/learning_rate", "validation/nats_per_dim"):
        a, b = ([value for _, value in recorder.series(name)] for recorder in seen)
        assert b == pytest.approx(a, abs=1e-5)
    torch.testing.assert_close(weights(recorded.averaged_model), weights(plain.averaged_model), rtol=0, atol=1e-5)
    assert recorded.average.n_averaged == plain.average.n_averaged == 12


@pytest.mark.parametrize("name", ["support", "query"])
def test_pixels_are_checked_before_a_recorded_update(name: str) -> None:
    run, good = trainer(), Patterns()
    run._graphed = run._graph_step  # type: ignore[assignment]

    class Bad:
        event_shape, levels = good.event_shape, good.levels

        def episode(self, *arguments: int) -> Episode:
            episode = good.episode(*arguments)
            return replace(episode, **{name: torch.full_like(getattr(episode, name), 2)})

    run.train = Bad()
    with pytest.raises(ValueError, match=f"{name} holds pixels from 2 to 2; with levels=2"):
        run.run()


def test_stopping_ends_the_run_after_a_step() -> None:
    run = trainer()
    run.run(Recorder(stop_at=3))
    assert run.step == 3


class Dithered(ConditionalPixelCNN):
    """A model whose loss draws, and which looks at data before training."""

    seen: tuple[int, int] | None = None

    def loss(self, support: torch.Tensor, query: torch.Tensor, generator: Any = None, **lengths: Any) -> torch.Tensor:
        noise = torch.rand(query.shape[:2], generator=generator)
        return super().loss(support, query) * (1 + noise)

    def initialise(self, source: Any, tasks: int, queries: int) -> None:
        self.seen = (tasks, queries)
        self.mean = source.episode(0, tasks, 0, queries).query.float().mean()


def dithered() -> Dithered:
    torch.manual_seed(0)
    return Dithered((1, 4, 4), 2, layers=2, planes=4, penultimate=4)


def test_the_loss_is_the_models_own() -> None:
    run, plain = trainer(dithered(), validate=False), trainer(dithered(), validate=False)
    episode = Patterns().episode(0, 4, 1, 2)
    bare = ConditionalPixelCNN.loss(plain.model, episode.support, episode.query).mean().item() / 16  # type: ignore[arg-type]
    assert bare < run.loss(episode).item() < 2 * bare
    assert bare == pytest.approx(-plain.model(episode.support).log_prob(episode.query).mean().item() / 16)


def test_a_loss_that_draws_is_a_pure_function_of_seed_and_step(tmp_path: Path) -> None:
    """The same run whatever torch's own state, resumed or not; another seed gives another."""
    whole = trainer(dithered(), validate=False)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole.run()
    assert torch.equal(state, torch.get_rng_state())
    half = trainer(dithered(), validate=False)
    half.run(Recorder(stop_at=3))
    half.save_state(tmp_path / "state.safetensors")
    rest = trainer(dithered(), validate=False)
    rest.resume(tmp_path / "state.safetensors")
    torch.rand(7)
    rest.run()
    assert torch.equal(weights(whole.model), weights(rest.model))
    other = trainer(dithered(), validate=False, seed=1, shots=(1,))
    assert other.loss(Patterns().episode(0, 4, 1, 2)) != trainer(dithered(), validate=False, shots=(1,)).loss(
        Patterns().episode(0, 4, 1, 2)
    )


def test_a_model_whose_parameters_are_all_frozen_is_refused() -> None:
    model = small_network()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"Type model.requires_grad_\(True\) first"):
        MetaTrainer(model, Patterns(), None, TrainingConfig(steps=2))


def test_a_model_may_look_at_data_before_training() -> None:
    model = dithered()
    trainer(model, validate=False)
    assert model.seen == (4, 2)
    assert model.mean == Patterns().episode(0, 4, 0, 2).query.float().mean()


@dataclass(frozen=True)
class Sequences(Patterns):
    """Patterns of which only the first places are real; the others hold what is no level of the model."""

    event_shape: tuple[int, ...] = (1, 8)
    padding: int = 0
    least: int = 1

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        whole = super().episode(index, tasks, shots, queries)
        generator = torch.Generator().manual_seed(index)
        lengths = torch.randint(self.least, 9, whole.query.shape[:2], generator=generator)
        real = torch.arange(8) < lengths[:, :, None, None]
        query = torch.where(real, whole.query, self.padding).to(torch.uint8)
        return replace(whole, query=query, query_lengths=lengths)


def unconditional() -> UnconditionalPixelCNN:
    torch.manual_seed(0)
    return UnconditionalPixelCNN((1, 8), 2, layers=2, planes=4, penultimate=4)


def run_on_sequences(source: Sequences) -> MetaTrainer:
    config = TrainingConfig(steps=5, tasks=4, queries=2, shots=(0,), warmup=1, validate_every=5, validation_tasks=8)
    return MetaTrainer(unconditional(), source, source, config)


def test_training_on_sequences_counts_their_real_places() -> None:
    """What stands at other places moves neither the loss nor the weights; a loss is a mean over real places."""
    results = []
    for padding in (0, 1, 77):
        run = run_on_sequences(Sequences(padding=padding))
        episode = run.train.episode(0, 4, 0, 2)
        terms = -run.model(episode.support).prefix_log_prob(episode.query, episode.query_lengths).detach()
        assert run.loss(episode).item() == pytest.approx(float(terms.sum() / episode.query_lengths.sum()))  # type: ignore[union-attr]
        run.run()
        results.append((weights(run.model), run.best))
    for found, best in results[1:]:
        assert torch.equal(found, results[0][0])
        assert best == results[0][1]
    assert not torch.equal(results[0][0], weights(run_on_sequences(Sequences(least=8)).run()))


def windowed(window: int, **settings: Any) -> MetaTrainer:
    torch.manual_seed(0)
    model = WaveNet((1, 8), 2, layers=3, planes=4, penultimate=4, dilations=(1, 2))
    config = TrainingConfig(
        steps=4,
        tasks=4,
        queries=2,
        shots=(1,),
        warmup=1,
        validate_every=4,
        validation_tasks=8,
        window=window,
        **settings,
    )
    return MetaTrainer(model, Sequences(), Sequences(), config)


def test_windows_are_trained_on_and_whole_sequences_validated() -> None:
    """A window of all places is the whole; windows are a pure function of (seed, step), whatever went before."""
    whole, of_all = windowed(0), windowed(8)
    assert torch.equal(weights(whole.run()), weights(of_all.run()))
    run, again = windowed(3), windowed(3)
    episode = windows(run.train.episode(0, 4, 1, 2), 3, run._generator(torch.device("cpu"), 1))
    lengths = {"support_lengths": episode.support_lengths, "query_lengths": episode.query_lengths}
    summed = run.model.resized(3).loss(episode.support, episode.query, **lengths).sum()
    assert run.update()[0] == pytest.approx(float(summed.detach()) / int(episode.query_sizes.sum()))
    tensors, header = run.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    again.load_state(tensors, header)
    assert torch.equal(weights(run.run()), weights(again.run()))
    assert not torch.equal(weights(run.model), weights(windowed(3, seed=1).run()))
    assert whole.validate().keys() == run.validate().keys()


def test_windows_ask_for_sequences_and_for_models_of_any_length() -> None:
    with pytest.raises(ValueError, match=r"UnconditionalPixelCNN is of events \(1, 8\) alone"):
        MetaTrainer(unconditional(), Sequences(), None, TrainingConfig(steps=1, shots=(0,), window=4))
    with pytest.raises(ValueError, match="window=3 with events"):
        MetaTrainer(small_network(), Patterns(), None, TrainingConfig(steps=1, window=3))
    with pytest.raises(ValueError, match=r"window=9 with events \(1, 8\)"):
        windowed(9)
    strings = ByteNet((1, 8), 2, layers=2, planes=4, encoder_layers=1, end=1)
    with pytest.raises(ValueError, match=r"window=3 for strings that end \(end=1\)"):
        MetaTrainer(strings, Sequences(), None, TrainingConfig(steps=1, window=3))
    for wrong in (-1, 2.5):
        with pytest.raises(ValueError, match=r"window=.*; give a number of places"):
            TrainingConfig(window=wrong)
    with pytest.raises(ValueError, match="graphs=True with windows"):
        TrainingConfig(window=3, graphs=True, device="cuda")


def test_supports_of_different_lengths_are_refused_by_models_of_one_size() -> None:
    run = run_on_sequences(Sequences())
    episode = run.train.episode(0, 4, 1, 2)
    given = replace(episode, support_lengths=torch.full((1, 4), 3))
    with pytest.raises(ValueError, match=r"UnconditionalPixelCNN reads supports of one size .* Cut windows"):
        run.loss(given)
    assert run.loss(episode).isfinite()


@pytest.mark.parametrize("options", [{"levels": 4}, {"event_shape": (1, 5, 5)}], ids=str)
@pytest.mark.parametrize("of", ["train", "validation"])
def test_a_model_of_other_images_is_refused(options: dict[str, Any], of: str) -> None:
    fitting = small_network()
    other = UnconditionalPixelCNN(**{"event_shape": fitting.event_shape, "levels": fitting.levels, **options})
    source = Patterns()
    wrong = replace(source, event_shape=other.event_shape, levels=other.levels)
    sources = (wrong, source) if of == "train" else (source, wrong)
    with pytest.raises(ValueError, match=r"The model is of images .* and these episodes have"):
        MetaTrainer(fitting, *sources, TrainingConfig(steps=1))

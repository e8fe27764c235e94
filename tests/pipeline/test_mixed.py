"""Joint states of two modalities, and teachers of one modality for students of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.core import Batch, Event, Mixture, Rng, Role, Roles, Sampler, cfg, tree
from distill.core.contracts import Context
from distill.core.errors import RecipeError
from distill.core.paths import Cosine, Flow, Joint
from distill.core.recipe import load_recipe
from distill.core.registry import default_registry
from distill.core.run import prepare
from distill.methods import toys
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.methods.times import ApartTimes
from distill.pipeline.lenses import Frames, MelPicture
from distill.pipeline.mixed import bouncing
from distill.pipeline.mixed.across import LabelData, Recollected, ThroughLens
from distill.pipeline.mixed.bouncing import BouncingDigits
from distill.pipeline.mixed.exact import Remembered, RememberedData, fields_of
from distill.pipeline.mixed.networks import JointMLP
from distill.pipeline.mixed.teachers import BouncingTeacher
from distill.pipeline.mixed.turning import TurningDigits, roughness

RECIPES = Path(__file__).parents[2] / "plugins/pipeline/recipes"
PATH = Joint(paths={"video": Flow(), "audio": Cosine()})
SHAPES = {"video": (2, 1, 2, 2), "audio": (1, 6)}
APART = {"name": "apart", "laws": {"video": {"name": "uniform"}, "audio": {"name": "uniform"}}}


def state(size, seed=0):
    return Batch(size, shape=SHAPES).noise(Rng(seed))


def network(**options):
    torch.manual_seed(0)
    return JointMLP(shapes=SHAPES, paths={"audio": "cosine"}, width=16, depth=1, classes=2, **options).build()


# ---------------------------------------------------------------- what each modality has of its own


@pytest.mark.parametrize("interval", [None, (0.2, 0.8)])
def test_every_modality_has_its_own_guidance(interval):
    role, x, t = Role("teacher", network()), state(3), {"video": torch.full((3,), 0.5), "audio": torch.full((3,), 0.9)}
    cond = {"label": torch.tensor([0, 1, 0])}
    said = role.ask(x, t, cond, guidance=cfg({"video": 3.0, "audio": 2.0}, interval=interval)).value
    video, audio, plain = (role.ask(x, t, cond, guidance=cfg(w)).value for w in (3.0, 2.0, 1.0))
    torch.testing.assert_close(said["video"], video["video"])
    torch.testing.assert_close(said["audio"], (plain if interval else audio)["audio"])


def test_a_joint_sampler_is_told_a_guidance_for_each_modality():
    sampler = Sampler(steps=2, guidance={"video": 3.0, "audio": 1.0})
    cond = {"label": torch.zeros(2, dtype=torch.long)}
    drawn = sampler.sample(Role("teacher", network()), state(2), cond)
    assert {name: tuple(part.shape[1:]) for name, part in drawn.items()} == SHAPES


def test_times_are_drawn_apart_and_within_their_own_laws():
    law = ApartTimes(laws={"video": {"name": "uniform", "low": 0.5}, "audio": {"name": "uniform", "high": 0.1}})
    t = law.draw(PATH, 200, Rng(0), "t")
    assert t["video"].min() >= 0.5 and t["audio"].max() <= 0.1
    assert abs(float(torch.corrcoef(torch.stack(list(t.values())))[0, 1])) < 0.2


@pytest.mark.parametrize("path", [Flow(), Joint(paths={"video": Flow()})])
def test_times_of_other_modalities_are_refused(path):
    with pytest.raises(RecipeError, match="one law for each"):
        ApartTimes.model_validate(APART).draw(path, 2, Rng(0), "t")


def gradients(**options):
    fixed = {name: Role(name, network(kind="x0")) for name in ("student", "teacher", "critic")}
    with torch.no_grad():
        fixed["critic"].denoiser.network.outlets["audio"].bias += 1
        fixed["critic"].denoiser.network.outlets["video"].bias += 1
    x = tree.tree_map(lambda part: part.requires_grad_(True), state(4))
    event = Event(x, {"label": torch.zeros(4, dtype=torch.long)})
    ScoreDifference(times=APART, **options).terms(event, Context(Roles(fixed), Rng(0)))[
        "score_difference"
    ].sum().backward()
    return {name: part.grad.abs().mean() for name, part in x.items()}


def test_a_modality_has_its_own_factor_and_its_own_scale():
    plain, twice = gradients(), gradients(parts={"audio": 2.0})
    torch.testing.assert_close(twice["audio"], 2 * plain["audio"])
    torch.testing.assert_close(twice["video"], plain["video"])
    assert gradients(parts={"audio": 0.0})["audio"] == 0


def test_a_factor_for_a_modality_that_is_not_there_is_refused():
    with pytest.raises(RecipeError, match="smell"):
        gradients(parts={"smell": 1.0})


def test_the_units_eps_work_for_joint_states():
    assert all(gradients(units="eps").values())


def test_denoising_weighs_modalities():
    fixed, event = Roles({"critic": Role("critic", network())}), Event(state(4), {"label": torch.ones(4).long()})

    def loss(**parts):
        return Denoise(times=APART, parts=parts).terms(event, Context(fixed, Rng(0)))["denoise_critic"].sum()

    torch.testing.assert_close(loss(video=0.0) + loss(audio=0.0), loss())


# ---------------------------------------------------------------- teachers


def test_samples_known_by_heart_are_a_mixture():
    means, x, t = torch.randn(5, 3), torch.randn(7, 3), torch.full((7,), 0.4)
    ours, known = Remembered(means, 0.2, Flow()), Mixture(means, 0.2, Flow())
    torch.testing.assert_close(ours.predict(x, t).x0, known.predict(x, t).x0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("together", [True, False])
def test_one_modality_tells_the_other_unless_they_are_judged_apart(together):
    means = {"video": torch.tensor([[-1.0], [1.0]]), "audio": torch.tensor([[-1.0], [1.0]])}
    teacher = Remembered(means, 0.1, PATH, together=together)
    t = {"video": torch.tensor([0.05]), "audio": torch.tensor([1.0])}
    said = teacher.predict({"video": torch.tensor([[0.95]]), "audio": torch.zeros(1, 1)}, t).x0
    assert float(said["audio"]) == pytest.approx(1.0 if together else 0.0, abs=1e-3)


def test_a_class_is_answered_with_its_own_samples():
    teacher = Remembered(torch.tensor([[-1.0], [1.0]]), 0.1, Flow(), torch.tensor([0, 1]))
    x, t = torch.zeros(3, 1), torch.ones(3)
    said = teacher.predict(x, t, {"label": torch.tensor([0, 1, 2])}).x0[:, 0]
    torch.testing.assert_close(said, torch.tensor([-1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_a_path_for_a_modality_that_data_lack_is_refused():
    with pytest.raises(RecipeError, match="smell"):
        RememberedData(data="turning-digits", samples=4, paths={"smell": "flow"}).build()


def test_what_is_heard_is_what_is_seen():
    x = fields_of(BouncingDigits(count=200).open(), 200)["x"]
    assert bouncing.synchrony(**x) > 0.99
    assert abs(bouncing.synchrony(x["video"], x["audio"].roll(1, 0))) < 0.3


def test_the_shipped_teacher_keeps_sound_and_picture_in_time():
    label, noise = torch.arange(100) % 10, Batch(100, shape=BouncingTeacher().build().shape).noise(Rng(0))
    x = Sampler(steps=8).sample(Role("teacher", BouncingTeacher().build()), noise, {"label": label})
    assert bouncing.synchrony(x["video"], x["audio"]) > 0.85


# ---------------------------------------------------------------- a teacher of another modality


def test_frames_repeat_the_conditions_of_their_clip():
    told = Frames().conditions({"label": torch.tensor([3, 5])}, torch.zeros(2, 3, 1, 2, 2))
    assert told["label"].tolist() == [3, 3, 3, 5, 5, 5]


def test_clips_turn_evenly():
    clips = TurningDigits(count=20).open().tensors["x"]
    assert clips.shape == (20, 6, 1, 8, 8) and roughness(clips) < 1e-5 < roughness(clips.flip(2)[:, torch.randperm(6)])


def test_loud_is_bright_and_silence_is_black():
    tone = (torch.arange(1024) * 0.5).sin()[None, None]
    bright, dark = MelPicture()(tone), MelPicture()(0 * tone)
    assert bright.shape == (1, 1, 9, 16) and bright.max() > 0.5 and bool((dark == -1).all())
    assert torch.equal(MelPicture(upside_down=True)(tone), bright.flip(-1))


def through(**options):
    teacher = MLPDenoiser(shape=(1, 8, 8), width=8, depth=1, classes=10).build()
    student = MLPDenoiser(shape=(6, 1, 8, 8), width=8, depth=1, classes=10).build()
    few = RememberedData(data="turning-digits", options={"classes": [1, 2], "count": 4}, samples=4)
    method = ThroughLens(steps=2, memory=few, **options)
    return toys.train(method, {"student": student, "teacher": teacher}, data=LabelData().open(), size=4, lens=Frames())


def test_teacher_and_few_samples_both_move_the_student():
    seen, method = [], through()
    assert {"student", "critic", "memory"} <= set(method.roles)
    seen.extend(term for update in method.plan.phases[0].updates for term in [type(update.loss).__name__])
    assert seen == ["PairRegression", "ScoreDifference", "Denoise"]


@pytest.mark.parametrize(("left_out", "gone"), [("score", "critic"), ("recollection", "memory")])
def test_what_weighs_nothing_is_left_out(left_out, gone):
    assert gone not in through(**{left_out: {"weight": 0.0}}).roles


def test_answers_are_asked_only_for_classes_that_there_are():
    engine = through()
    event = next(iter(Recollected().events(Batch(16), engine.ctx, attached=False)))
    assert set(event.cond["label"].tolist()) <= {1, 2} and event.x.shape == event.targets["end"].shape


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", ["audio-video", "bouncing-teacher", "picture-to-video"])
def test_recipes_resolve(name):
    run = prepare(*load_recipe(RECIPES / f"{name}.yaml"), default_registry())
    run.probe()
    assert run.plan.steps >= 200


def test_a_student_is_shown_in_the_modality_that_its_lens_takes():
    run = prepare(*load_recipe(RECIPES / "picture-to-video.yaml"), default_registry())
    assert type(run.modality).__name__ == "Video"


@pytest.mark.long
@pytest.mark.parametrize("name", ["mel-teacher", "picture-to-scene", "picture-to-sound"])
def test_large_recipes_resolve(name):
    run = prepare(*load_recipe(RECIPES / f"{name}.yaml"), default_registry())
    run.probe()
    assert run.plan.steps >= 200


def test_the_recipe_is_what_its_claim_measures():
    from distill.pipeline.mixed.claims.audio_video import BOTH, method

    run = prepare(*load_recipe(RECIPES / "audio-video.yaml"), default_registry())
    assert run.method.plan(Sampler()) == method(BOTH).plan(Sampler())

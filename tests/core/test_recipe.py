"""Reading recipes: what is accepted, and how every mistake is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.core.contracts import Method, Transform
from distill.core.errors import DistillError, RecipeError
from distill.core.recipe import Recipe, Resolver, Source, dump, load_recipe, parse, validate
from distill.core.registry import default_registry

GOOD = "method: {name: dmd2, times: [1.0, 0.5]}\nteacher: digits-teacher\nmetrics: [frechet, {name: recall}]\n"


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)[0]


BAD = {
    "method: x\nbacth_size: 3": ["r.yaml:2: unknown key 'bacth_size'; did you mean 'batch_size'?"],
    "method: x\nroles:\n  critic: {guidence: 2}": ["r.yaml:3", "'roles.critic.guidence'", "'guidance'"],
    "method: x\nbatch_size: many": ["r.yaml:2: batch_size", "valid integer", "'many'"],
    "method: [x]": ["r.yaml:1: method: give a name, or a mapping"],
    "method: {1: 2}": ["r.yaml:1: method: give a name"],
    "method: x\nbatch_size: 0": ["r.yaml:2", "greater than 0"],
    "method: x\nbatch_size: 8\naccumulate: 3": ["r.yaml:3: accumulate: the batch_size 8 cannot be cut into 3"],
    "method: x\nseed: -1": ["r.yaml:2: seed"],
    "method: x\ntrackers: [foo]": ["r.yaml:2", "'tensorboard' or 'wandb'"],
    "a: [1\nb: 2": ["r.yaml:2: not YAML"],
    "data: x\nmethod: x\ndata: y": ["r.yaml:3: the key 'data' stands at", "r.yaml:1 already"],
    "{data: x, method: x, data: y}": ["the key 'data'"],
    "method: {name: x, a: 1, a: 2}": ["the key 'method.a'"],
    "": ["a recipe is a mapping", "nothing"],
    "- a": ["a recipe is a mapping", "a list"],
    "method: 2001-01-01": ["r.yaml:1: a timestamp is no value"],
    "method: !!python/name:os.system x": ["r.yaml:1", "no value of a recipe"],
    "method: *x": ["r.yaml:1: not YAML", "alias"],
    "teacher: x": ["r.yaml: method: Field required"],
}


@pytest.mark.parametrize("text", BAD)
def test_a_mistake_is_answered_with_place_and_remedy(tmp_path, text):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "r.yaml")) and "\n" not in str(error.value)
    assert all(part in str(error.value) for part in BAD[text]), error.value


def test_several_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(RecipeError, match=r"(?s)r.yaml:1: batch_size.*\n.*r.yaml:2: unknown key 'x'"):
        load(tmp_path, "batch_size: no\nx: 1\nmethod: y")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(RecipeError, match="not a text file"):
        load_recipe(tmp_path / "picture.yaml")


def test_aliases_of_aliases_are_refused_in_time():
    layers = "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12))
    with pytest.raises(RecipeError, match="more than 20,000 values"):
        parse(f"a0: &a0 [x]\n{layers}", "bomb.yaml")
    with pytest.raises(DistillError):
        parse("a: &a [*a]", "loop.yaml")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("method.steps=5", {"name": "dmd2", "times": [1.0, 0.5], "steps": 5}),
        ("method.times=[1.0]", {"name": "dmd2", "times": [1.0]}),
        ("method.times.1=0.25", {"name": "dmd2", "times": [1.0, 0.25]}),
        ("method=sid", "sid"),
        ("method.critic.drop=0.1", {"name": "dmd2", "times": [1.0, 0.5], "critic": {"drop": 0.1}}),
    ],
)
def test_overrides(tmp_path, override, found):
    assert load(tmp_path, GOOD, override).method == found


def test_an_override_gives_options_to_what_was_a_name(tmp_path):
    recipe = load(tmp_path, GOOD, "teacher.steps=8", "metrics.0.features=digits", "data=digits")
    assert recipe.teacher == {"name": "digits-teacher", "steps": 8} and recipe.data == "digits"
    assert recipe.metrics == [{"name": "frechet", "features": "digits"}, {"name": "recall"}]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "write key=value"),
        ("=3", "write key=value"),
        ("a..b=3", "write key=value"),
        ("batch_size=[1", "override 'batch_size=[1'"),
        ("metrics.7.x=3", "a list of 2 has no '7'"),
        ("metrics.a=3", "a list of 2 has no 'a'"),
        ("method.times.0.x=3", "is 1.0 and has no 'x'"),
        ("batch_size=0", "override 'batch_size=0': batch_size: Input should be greater than 0"),
        ("method.times={x: 1, x: 2}", "stands at"),
    ],
)
def test_bad_overrides_are_named(tmp_path, override, said):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, GOOD, override)
    assert said in str(error.value)


def test_a_dumped_recipe_is_the_same_recipe(tmp_path):
    recipe = load(tmp_path, GOOD, "roles.critic.guidance=2.5")
    assert load(tmp_path, dump(recipe)) == recipe


def test_the_digest_sees_what_changes_the_weights(tmp_path):
    digest = load(tmp_path, GOOD).digest()
    assert load(tmp_path, GOOD, "preview_every=5", "metrics=[]", "workers=1").digest() == digest
    assert load(tmp_path, GOOD, "seed=1").digest() != digest


def test_a_resolver_says_where_and_what(tmp_path):
    values, source = parse("method:\n  name: dmd2\n  stpes: 3\n", "r.yaml")
    resolve = Resolver(default_registry(), source)
    with pytest.raises(RecipeError, match="r.yaml:3: unknown key 'method.stpes'; did you mean 'steps'"):
        resolve(values["method"], "method", Method, "method")
    with pytest.raises(DistillError, match="r.yaml:1: there is no method 'swiftbrish'. Did you mean 'swiftbrush'"):
        resolve("swiftbrish", "method", Method, "method")
    with pytest.raises(RecipeError, match="r.yaml:1: method needs a 'name'"):
        resolve({"steps": 3}, "method", Method, "method")
    with pytest.raises(RecipeError, match="is not a Transform: its plugin is wrong"):
        resolve("dmd2", "method", Transform, "method")


def test_validate_places_what_lies_deeper():
    with pytest.raises(RecipeError, match=r"r.yaml:4: unknown key 'roles.critic.x'"):
        validate(
            Recipe,
            {"method": "m", "roles": {"critic": {"x": 1}}},
            Source("r.yaml", {("roles", "critic"): "r.yaml:4"}),
        )

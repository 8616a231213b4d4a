import itertools

import pytest

from immersivedepth.app import choices
from immersivedepth.app.settings import App
from immersivedepth.checks import ConfigError
from immersivedepth.pipeline import assemble
from immersivedepth.weights import REGISTRY, Weights

FIRST = [next(iter(table)) for table in (choices.SIZES, choices.ALIGNMENTS, choices.REFINEMENTS)]
ALL = [n for n in choices.known(App(unet_weights="u.ckpt")) if n.source is None or n.source.url]


@pytest.mark.parametrize("network", ALL, ids=lambda n: n.name)
def test_every_network_composes(compose, network):
    given = choices.overrides([network], *FIRST, "turbo")
    pipeline = assemble(compose(*given))
    assert len(pipeline.predict) == 1
    if network.source is not None and network.source.package != "omnidata":
        (predict,) = pipeline.predict.values()
        assert network.name in (getattr(predict, "name", None), getattr(predict, "model", None))


def test_every_choice_composes(compose):
    exact = choices.known(App())[-1]
    rest = (choices.ALIGNMENTS, choices.REFINEMENTS, choices.COLOURS)
    combinations = [(size, *FIRST[1:], "turbo") for size in choices.SIZES]
    combinations += [(FIRST[0], *some) for some in itertools.islice(itertools.product(*rest), 0, None, 9)]
    for combination in combinations:
        assemble(compose(*choices.overrides([exact], *combination)))


def test_only_what_lies_there_can_be_chosen(tmp_path):
    weights = Weights(folder=str(tmp_path))
    name = "depth_anything_v2_vits"
    assert name not in choices.present(App(), weights)
    assert name in choices.absent(App(), weights)
    with pytest.raises(ConfigError, match="no network that is present"):
        choices.chosen([name], App(), weights)
    (tmp_path / REGISTRY[name].file).touch()
    assert [n.name for n in choices.chosen([name, name], App(), weights)] == [name]
    assert name not in choices.absent(App(), weights)


@pytest.mark.parametrize(
    "wrong",
    [
        (["x"], *FIRST, "turbo"),
        ([{"_target_": "os.system"}], *FIRST, "turbo"),
        (["oracle"], "a b=c", *FIRST[1:], "turbo"),
        (["oracle"], FIRST[0], "align=identity", FIRST[2], "turbo"),
        (["oracle"], *FIRST[:2], "${oc.env:HOME}", "turbo"),
        (["oracle"], *FIRST, "turbo mode=train"),
        ([], *FIRST, "turbo"),
    ],
)
def test_text_of_a_visitor_reaches_no_config(wrong, tmp_path):
    networks, *others = wrong
    with pytest.raises((ConfigError, TypeError)):
        choices.overrides(choices.chosen(networks, App(), Weights(folder=str(tmp_path))), *others)


def test_one_of_a_family():
    by_name = {n.name: n for n in ALL}
    pair = [by_name["depth_anything_v2_vits"], by_name["depth_anything_v2_metric_hypersim_vits"]]
    with pytest.raises(ConfigError, match="one of each family"):
        choices.overrides(pair, *FIRST, "turbo")
    mixed = choices.overrides([pair[0], by_name["midas_v21_small_256"]], *FIRST, "turbo")
    assert mixed[0] == "predict=[depth_anything_v2,midas]"


@pytest.mark.parametrize("name", ["room.jpg", "a,b=c.png", "it's (1) {x} [y].png", "back\\slash.png", "-x=.png"])
def test_the_shown_line_gives_the_same_run(compose, name):
    import shlex

    given = choices.overrides([choices.known(App())[-1]], *FIRST, "magma")
    words = shlex.split(choices.command(given, name))
    assert words[:2] == ["python", "core_exp_runner.py"]
    shown = compose(*(word for word in words[2:] if word.strip()))
    meant = compose(*given)
    meant["dataset"]["image_path"] = name
    assert shown == meant

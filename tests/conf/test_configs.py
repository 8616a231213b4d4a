"""Every YAML file composes, fits the class it names, shows every key of it and is named after it."""

import inspect
import re

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from immersivedepth.config import CONF
from immersivedepth.pipeline import Pipeline, assemble

OPTIONS = sorted((p.parent.name, p.stem) for p in CONF.glob("*/*.yaml"))
SEVERAL = {"enhance", "predict", "refine", "export"}
STAGES = [(group, option) for group, option in OPTIONS if group in Pipeline.__dataclass_fields__]


def override(group, option):
    return f"{group}=[{option}]" if group in SEVERAL else f"{group}={option}"


def node_of(group, option):
    """The node with the target of a stage's option, and None for options that do nothing."""
    raw = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"), resolve=False)
    if group in SEVERAL:
        assert len(raw) <= 1, f"{group}/{option}.yaml: expected one name that holds the option"
        return next(iter(raw.values()), None)
    return raw


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda v: v)
def test_every_option_composes_and_fits_its_class(compose, group, option):
    config = compose(override(group, option) if group != "experiment" else f"experiment={option}")
    if group in Pipeline.__dataclass_fields__:
        assemble(config)


@pytest.mark.parametrize("name", sorted(p.stem for p in CONF.glob("*.yaml")))
def test_every_preset_composes(compose, name):
    assemble(compose(name=name))


@pytest.mark.parametrize(("group", "option"), STAGES, ids=lambda v: v)
def test_yaml_shows_every_key_of_its_class(group, option):
    node = node_of(group, option)
    if not node:
        return
    keys = {k for k in node if not k.startswith("_")}
    assert keys == set(inspect.signature(get_object(node["_target_"])).parameters)


@pytest.mark.parametrize(("group", "option"), [s for s in STAGES if s[0] not in SEVERAL], ids=lambda v: v)
def test_option_is_the_class_in_snake_case(group, option):
    module, name = node_of(group, option)["_target_"].rsplit(".", 1)
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() == option
    assert module.startswith(f"immersivedepth.stages.{group}")

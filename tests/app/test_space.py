"""The Space and the container ask for what exists."""

import ast
import re
from pathlib import Path

import gradio
import yaml

ROOT = Path(__file__).parents[2]


def test_the_front_matter_names_what_is_there():
    matter = yaml.safe_load((ROOT / "spaces" / "README.md").read_text("utf-8").split("---")[1])
    assert (ROOT / "spaces" / matter["app_file"]).is_file()
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"].split(".")[0] == gradio.__version__.split(".")[0]
    assert tuple(map(int, matter["python_version"].split("."))) >= (3, 11)


def test_the_settings_of_the_space_compose(compose):
    tree = ast.parse((ROOT / "spaces" / "app.py").read_text())
    (settings,) = (
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "SETTINGS"
    )
    assert compose(*settings)["app"]["host"] == "0.0.0.0"


def test_the_container_starts_the_page(compose):
    command = re.search(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    program, *settings = ast.literal_eval(command[1])
    assert f'{program} = "core_exp_runner:main"' in (ROOT / "pyproject.toml").read_text()
    assert compose(*settings)["mode"] == "demo"

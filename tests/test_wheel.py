"""What is installed is what is in the checkout, and it runs outside of it."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_config_and_asset(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.split(
        "\n"
    )
    wanted = {n for n in listed if n.startswith(("immersivedepth/", "midas/", "depth_anything_v2/"))}
    wanted |= {f"immersivedepth/{n}" for n in listed if n.startswith("conf/")} | {"core_exp_runner.py"}
    assert wanted <= inside, f"missing from the wheel: {sorted(wanted - inside)}"
    strays = {n for n in inside - wanted if ".dist-info/" not in n}
    assert not strays, f"not in the repository: {sorted(strays)}"


@pytest.mark.slow
def test_the_installed_command_runs_outside_the_checkout(wheel, tmp_path):
    # The heavy dependencies come from the environment of the tests; only the project itself is installed anew.
    venv.create(tmp_path / "env", system_site_packages=False, with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, cwd=tmp_path)
    site = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True, capture_output=True
    ).stdout.strip()
    # A .pth line appends the folder without running the editable hooks in it.
    (Path(purelib) / "dependencies.pth").write_text(f"{site}\n")
    command = [tmp_path / "env" / "bin" / "immersivedepth", "dataset.image_resize=[128,64]", "project.resolution=48"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / line).is_file() for line in done.stdout.splitlines())
    where = subprocess.run(
        [python, "-c", "import immersivedepth.config as c; print(c.__file__, c.CONF)"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    ).stdout
    assert str(ROOT) not in where

"""A wheel installed elsewhere brings its weights and zoo."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=ROOT)
    (path,) = folder.glob("fpkit-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Folder of the installed package, far from the checkout."""
    folder = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--disable-pip-version-check", "--root-user-action=ignore", "--target", folder, wheel,
        cwd=folder)  # fmt: skip
    return folder


def python(installed: Path, code: str, *arguments: str | Path) -> str:
    return run(sys.executable, "-W", "error", "-c", code, *arguments, cwd=installed.parent,
               PYTHONPATH=str(installed))  # fmt: skip


def test_wheel_holds_the_package_and_all_of_the_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [*(ROOT / "fpkit").glob("*.py"), *(ROOT / "data").rglob("*")]
    local = {".npy", ".pyc"}
    ours = {path.relative_to(ROOT).as_posix() for path in files
            if path.is_file() and path.suffix not in local
            and path.name != "checkpoint.safetensors"}  # fmt: skip
    assert any(name.endswith(".safetensors") for name in ours)
    missing = {"fpkit/_data/" + name[5:] if name.startswith("data/") else name
               for name in ours} - names  # fmt: skip
    assert not missing
    assert not [name for name in names if name.endswith((".npy", ".pyc", ".ipynb"))]
    assert {name.split("/")[0] for name in names} == {"fpkit", "fpkit-0.1.0.dist-info"}
    assert "fpkit-0.1.0.dist-info/licenses/LICENSE" in names


def test_installed_package_reads_its_own_data(installed):
    code = (
        "import json, fpkit\n"
        "from fpkit import assets\n"
        "from fpkit.extractor import load_extractor\n"
        "from fpkit.zoo import Zoo\n"
        "zoo = Zoo.load()\n"
        "zoo.model(zoo.model_ids[0])\n"
        "places = [assets.extractor_path(), assets.zoo_path(), assets.denoiser_path()]\n"
        "print(json.dumps([fpkit.__file__, *map(str, places), len(zoo), load_extractor().hash]))"
    )
    file, *places, models, digest = json.loads(python(installed, code))
    package = installed / "fpkit"
    assert Path(file) == package / "__init__.py"
    assert places == [str(package / "_data" / part) for part in ("extractor", "zoo", "denoiser")]
    assert models >= 48

    from fpkit.extractor import load_extractor

    assert digest == load_extractor().hash


def test_installed_figures_of_real_generators_load(installed):
    code = (
        "from fpkit.realworld import real_fingerprints\n"
        "found = real_fingerprints()\n"
        "print(len(found), found[0].spectra['median'].shape)"
    )
    assert python(installed, code).strip() == "59 (128, 128)"


def test_installed_denoiser_loads(installed):
    code = "from fpkit.residual import load_dncnn; print(load_dncnn().training)"
    assert python(installed, code).strip() == "False"


def test_the_command_is_declared(wheel):
    archive = zipfile.ZipFile(wheel)
    entry_points = archive.read("fpkit-0.1.0.dist-info/entry_points.txt").decode()
    assert "fpkit = fpkit.cli:main" in entry_points

"""The shape of the repository: who imports whom, what loads when, and that its lists agree."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OUTER = {"plots", "pictures", "panel", "widgets", "teach", "grading", "cli", "__main__"}
OUTER |= {"block_explorer", "synthesis_explorer", "fingerprint_browser", "training_monitor"}
OUTER |= {"upload", "live_figure", "desk_controls", "desk_figures"}
OUTER |= {"app_page", "app_server", "lab_server"}
OUTER |= {
    "training_plots",
    "embedding_map",
    "attribution_desk",
    "scatter",
    "model_maker",
    "synthesis_views",
    "discovery_report",
}

# Left to right: a module never needs one to its right, not even through others.
CHAINS = [
    "artefacts tensor_files assets images spectrum extractor training",
    "temporaries assets",
    "locks gallery",
    "tensor_files vector_index gallery_search gallery verdicts",
    "tensor_files gallery_file gallery",
    "interrupts training",
    "assets embedding_cache baselines features bench",
    "locks zoo zoo_build",
    "locks training",
    "arch blocks synthesis zoo synthesizer stream training",
    "upsampling blocks",
    "arch blocks synthesis zoo zoo_plan zoo_build",
    "parallel zoo synthesizer",
    "parallel procedural zoo_build",
    "procedural stream",
    "kernels encoder decoders synthesizer stream",
    "synthesizer validation",
    "residual spectrum extractor",
    "coherence extractor",
    "matching stream",
    "clouds populations metrics gallery protocol openset bench",
    "metrics pairs protocol tables",
    "images manifest protocol bench",
    "spectrum baselines features bench",
    "images degrade features",
    "spectrum fidelity realworld",
    "zoo decoders fidelity ablation",
    "clouds populations ablation",
    "clouds fidelity ffd_metric",
    "manifest realworld",
    "losses learner training",
    "embedder resnet paper extractor train_plan learner training",
    "images embedder",
    "residual paper",
    "distributed learner",
    "distributed zoo_build",
    "stream train_plan",
    "metrics validation training",
    "stream validation",
    "spectrum observations normalisation",
    "synthesis normalisation",
    "blocks generators swap",
    "spectrum swap",
    "metrics gallery lineage calibration",
    "artefacts card_entries lineage",
    "card_entries verdicts",
    "zoo extractor finetunes calibration",
    "decoders finetunes",
    "images extractor onnx_export",
    "procedural onnx_export",
    "observations harmonics generation_block",
    "generation_block block_explorer widgets",
    "panel pictures plots block_explorer widgets teach",
    "plots synthesis_explorer widgets teach cli",
    "pictures synthesis_explorer widgets teach cli",
    "panel model_maker synthesis_explorer",
    "panel pictures plots training_plots training_monitor widgets",
    "projection scatter training_plots",
    "validation training training_monitor",
    "fidelity realworld nearest synthesis_views synthesis_explorer",
    "synthesis made_model model_maker synthesis_explorer",
    "plots fingerprint_browser widgets",
    "spectrum lattice fingerprint_browser",
    "zoo realworld fingerprint_sources fingerprint_browser",
    "spectrum realworld spectral_correlation desk_data desk_figures desk_controls attribution_desk",
    "metrics gallery verdicts evidence desk_data",
    "images spectrum traces evidence desk_data",
    "evidence cli_verdicts cli",
    "gallery verdicts verdict_calibration",
    "finetunes verdict_bank verdict_trials verdict_calibration cli_calibrate cli",
    "calibration verdict_calibration",
    "images jail desk_data upload desk_controls",
    "names panel",
    "panel plots attribution_desk widgets app_page",
    "checks checks_capstone teach",
    "checks checks_upsampling teach",
    "checks checks_start teach",
    "checks checks_training teach",
    "lesson grading cli_grade cli",
    "checks grading",
    "neighbours projection scatter embedding_map widgets",
    "artefacts intake folders shards sources corpus_unit corpus cli_corpus cli",
    "sources corpus_plan corpus",
    "verdicts evidence corpus_unit",
    "embedder corpus_unit",
    "locks corpus",
    "corpus ray_run cli_corpus",
    "checks checks_map teach",
    "extractor gallery verdicts estimators",
    "columns estimators",
    "agglomeration discovery discovery_calibration cli_calibrate cli",
    "extractor gallery verdicts discovery discovery_report cli_discover cli",
    "verdict_bank discovery_calibration",
    "names plots scatter discovery_report",
]

# ---- imports -----------------------------------------------------------------------------------


def direct_imports(source: str, names: set[str]) -> set[str]:
    """Modules of fpkit that this source imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ("fpkit." if node.level else "") + (node.module or "")
            module = module.rstrip(".")
            if module == "fpkit":
                found |= {
                    f"fpkit.{alias.name}" if alias.name in names else "fpkit"
                    for alias in node.names
                }
            else:
                found.add(module)
    return {
        name.split(".")[1] if "." in name else "__init__"
        for name in found
        if name.split(".")[0] == "fpkit"
    }


def package_imports() -> dict[str, set[str]]:
    files = {path.stem: path for path in (ROOT / "fpkit").glob("*.py")}
    return {
        name: direct_imports(path.read_text("utf-8"), set(files)) for name, path in files.items()
    }


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, waiting = set(), list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def is_outer(name: str) -> bool:
    return name in OUTER or name.startswith("cli_")


def test_direct_imports_sees_every_form():
    source = """
import fpkit.a, numpy
from fpkit import b, Thing
from fpkit.c import f
def g():
    from . import d
    from .e import h
"""
    assert direct_imports(source, set("abcde")) == {"a", "b", "c", "d", "e", "__init__"}


def test_the_package_is_flat():
    assert not [path for path in (ROOT / "fpkit").rglob("*.py") if path.parent.name != "fpkit"]


def test_imports_point_one_way():
    graph = package_imports()
    for chain in CHAINS:
        present = [name for name in chain.split() if name in graph]
        for earlier, later in combinations(present, 2):
            assert later not in reachable(graph, earlier), f"{earlier} needs {later}"


def test_no_module_needs_itself_or_the_package_front():
    graph = package_imports()
    for name in graph:
        assert name not in reachable(graph, name), f"{name} is part of an import cycle"
        if not is_outer(name):
            assert "__init__" not in graph[name], f"{name}: import from the module itself"


def test_core_never_imports_the_outer_layers():
    graph = package_imports()
    for name in graph:
        if not is_outer(name):
            outer = {other for other in reachable(graph, name) if is_outer(other)}
            assert not outer, f"{name} needs {outer}"
        if name != "__main__":
            shell = {other for other in graph[name] if other.startswith("cli")}
            assert not shell or name.startswith("cli"), f"{name} imports {shell}"


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_style(command):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_grab_bags():
    assert not {"utils", "common", "helpers", "misc", "tools"} & set(package_imports())


# ---- what no module does -----------------------------------------------------------------------

# Modules that run what they read, or talk to a network; and the modules that may import them.
RUNS_CODE = "pickle _pickle cloudpickle dill joblib marshal shelve code codeop runpy"
TALKS = "requests httpx aiohttp urllib3 urllib.request websocket websockets fsspec ssl xmlrpc"
TALKS += " http.server ftplib smtplib imaplib poplib telnetlib huggingface_hub"
FORBIDDEN_IMPORTS = {
    **dict.fromkeys([*RUNS_CODE.split(), *TALKS.split()], ""),
    "subprocess": "cli",  # starts JupyterLab where there is no exec
    "socket": "cli_app",  # asks whether a port of this machine is free
    "http.client": "app_server",  # the words of status codes
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "mktemp"),
    *("torch.hub.load", "torch.hub.load_state_dict_from_url", "pd.read_pickle"),
}


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def dangers(name: str, source: str) -> list[str]:
    """Lines of a module that could run what a file holds, or reach a network."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for imported in imported_names(node):
            for part, where in FORBIDDEN_IMPORTS.items():
                if f"{imported}.".startswith(f"{part}.") and name not in where.split():
                    found.append(f"{name}:{node.lineno} imports {imported}")
        if not isinstance(node, ast.Call):
            continue
        call, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if (
            call in FORBIDDEN_CALLS
            or (call == "torch.load" and options.get("weights_only") != "True")
            or (call in ("np.load", "numpy.load") and options.get("allow_pickle") != "False")
            or options.get("shell", "False") != "False"
            or options.get("allow_pickle", "False") != "False"
        ):  # fmt: skip
            found.append(f"{name}:{node.lineno} calls {call}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import urllib.request",
        "from urllib import request",
        "from http import client",
        "import torch.hub; torch.hub.load('a', 'b')",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "os.system('ls')",
        "run(command, shell=True)",
        "tempfile.mktemp()",
        "def inside():\n    import socket",
    ],
)
def test_dangers_are_seen(line):
    assert len(dangers("module", line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from urllib.parse import urlsplit",
        "model.eval()",
        "re.compile('a')",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "run(command, shell=False)",
        "from http import HTTPStatus",
    ],
)
def test_what_is_harmless_is_let_pass(line):
    assert not dangers("module", line)


def test_no_module_runs_what_it_reads_or_reaches_a_network():
    found = [
        danger
        for path in sorted((ROOT / "fpkit").glob("*.py"))
        for danger in dangers(path.stem, path.read_text("utf-8"))
    ]
    assert not found


# ---- what `import fpkit` costs -----------------------------------------------------------------


def python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_import_is_lazy():
    loaded = json.loads(python("import fpkit, json, sys; print(json.dumps(sorted(sys.modules)))"))
    top = {name.split(".")[0] for name in loaded}
    assert "torch" in top
    heavy = {"plotly", "ipywidgets", "anywidget", "umap", "numba", "IPython", "jupyterlab"}
    heavy |= {"torchmetrics", "onnx", "onnxruntime", "onnxscript", "pyarrow"}
    heavy |= {"sklearn", "pandas", "pyarrow"}
    assert not top & heavy


def test_command_line_help_needs_no_plots():
    code = (
        "import sys, contextlib, io, fpkit.cli as cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    cli.main(['--help'])\n"
        "print('plotly' in sys.modules)"
    )
    assert python(code).strip() == "False"


def test_import_takes_under_two_and_a_half_seconds():
    # processor time of this one process: a busy machine does not change it
    code = "import time, fpkit; print(time.process_time())"
    assert min(float(python(code)) for _ in range(3)) < 2.5


# ---- lists that must agree ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def requirements(project: dict) -> list[Requirement]:
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for group in (project["dependencies"], *extras) for text in group]


def pins() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def test_constraints_are_exact_and_from_any_index():
    for pin in (pin for several in pins().values() for pin in several):
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin
        assert pin.url is None and not pin.extras


def test_one_pin_applies_for_every_python():
    for name, several in pins().items():
        for minor in range(10, 15):
            version = {"python_version": f"3.{minor}", "sys_platform": "linux"}
            fitting = [p for p in several if p.marker is None or p.marker.evaluate(version)]
            assert len(fitting) <= 1, f"{name} is pinned twice for Python 3.{minor}"


def test_pins_lie_within_the_ranges(project):
    known = pins()
    for requirement in requirements(project):
        for pin in known[canonicalize_name(requirement.name)]:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version), f"{pin} is not {requirement}"
            lower = {spec.operator for spec in requirement.specifier}
            assert lower == {">="}, f"{requirement}: a library gives wide ranges"


def test_tested_torch_is_pinned():
    assert str(pins()["torch"][0]) == "torch==2.13.0"


def test_constraints_name_everything_that_gets_installed(project):
    known, seen = pins(), set()
    waiting = [(req, extra) for req in requirements(project) for extra in ("", *req.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add((name, extra))
        assert name in known, f"{name} is installed but not in constraints.txt"
        try:
            needs = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:
            continue  # the environment has fewer extras
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need, more) for more in ("", *need.extras)]
    assert len(seen) > 50


def test_conda_environment_is_in_step(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert environment["name"] == project["name"]
    python_range = next(Requirement(text) for text in conda if text.startswith("python"))
    lowest = {str(spec) for spec in python_range.specifier if spec.operator == ">="}
    assert lowest == {project["requires-python"]}
    assert pip["pip"][0] == "-c constraints.txt"
    # no student audits, or has a cluster
    extras = ",".join(sorted(project["optional-dependencies"].keys() - {"audit", "cluster"}))
    assert pip["pip"][1:] == [f"-e .[{extras}]"]


def test_contributing_gives_a_reason_for_every_dependency(project):
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert not [req.name for req in requirements(project) if req.name not in text]


def test_version_is_told_once_more_only_in_the_citation(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]

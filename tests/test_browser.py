"""The course in a real browser, as a student meets it: JupyterLab, every lesson, every slider.

Screenshots are kept in tests/artifacts/ (not in the repository). With the environment variable
FPKIT_TOUR set to a folder, those that the tour shows are written there as well (make tour).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

from fpkit.cli import main
from fpkit.decoders import RandomDecoder
from fpkit.images import write_png
from fpkit.names import visible
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

playwright.expect.set_options(timeout=60_000)

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
REPO = Path(__file__).parent.parent
ARTIFACTS = Path(__file__).parent / "artifacts"
LESSONS = sorted(path.stem for path in (REPO / "notebooks").glob("[0-9]*.ipynb"))
MODELS = {
    "deconv": "K1-L1-Udeconv-Asigmoid-Nbatch-Spost/seed0",
    "bilinear": "K1-L1-Ubilinear-Asigmoid-Nbatch-Spost/seed0",
}
HOSTILE = (  # names, as files and models could have them; the first one a folder too
    "<img src=x onerror=\"window.hit='img'\">",
    "<script>window.hit='script'</script>",
    "<a href=\"javascript:window.hit='link'\">click</a>",
    "'\"><svg onload=alert(1)>",
    "two\nlines",
    "photo\u202egnp.exe",
)
# lessons whose first widget the tour shows
TOUR = {
    "09_real_generators": "fingerprint_browser",
    "02_why_upsampling_leaves_marks": "block_explorer",
    "04_build_synthetic_models": "synthesis_explorer",
    "06_train_an_extractor": "training_monitor",
    "08_the_map": "embedding_map",
}
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# the whole page in the document (JupyterLab leaves out what is not in view), and no pop-ups
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
# before the kernel has said what it is, "run all" may do nothing
KERNEL_READY = """async () => {
    const session = window.jupyterapp.shell.currentWidget.sessionContext;
    await session.ready;
    await session.session.kernel.info;
}"""
END_KERNELS = "() => window.jupyterapp?.serviceManager.sessions.shutdownAll()"
# every code cell has its number, or one failed and the rest did not run
ALL_CELLS_RAN = f"""() => document.querySelector('{ERROR}')
    || [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].every(
        cell => /\\d/.test(cell.querySelector('.jp-InputPrompt').textContent))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {NAMES} is on the PATH"),
]


@contextmanager
def served(command: list[str], url: str, log: Path, **folders: Path) -> Iterator[None]:
    """Run a server until it answers at `url`, and end it afterwards."""
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _wait_until_serving(url, server, log)
            yield
        finally:
            server.terminate()
            server.wait(20)


def _wait_until_serving(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=30).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"nothing is served at {url}:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def jupyterlab(theme: str, home: Path) -> Iterator[str]:
    """URL of a JupyterLab on loopback that serves a copy of the notebooks."""
    shutil.copytree(REPO / "notebooks", home / "notebooks")
    chosen = {"apputils-extension/themes": {"theme": f"JupyterLab {theme}"}}
    for name, values in (SETTINGS | chosen).items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    port = free_port()
    url = f"http://127.0.0.1:{port}/lab/tree"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={home}/notebooks",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
    }
    with served(command, url, home / "log", **folders):
        yield url


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with jupyterlab("Light", tmp_path_factory.mktemp("light")) as url:
        yield url


@pytest.fixture
def dark(tmp_path: Path) -> Iterator[str]:
    with jupyterlab("Dark", tmp_path) as url:
        yield url


@pytest.fixture
def page() -> Iterator["playwright.Page"]:
    """A page that must ask nobody but servers of this machine."""
    ARTIFACTS.mkdir(exist_ok=True)
    asked: set[str] = set()
    refused: set[str] = set()  # by the page's own content policy
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.add(request.url))
        page.on("requestfailed", lambda one: one.failure == "csp" and refused.add(one.url))
        yield page
        page.evaluate(END_KERNELS)
        browser.close()
    hosts = {urlsplit(url).hostname for url in asked - refused}
    assert hosts <= {"127.0.0.1", None}, hosts  # None: data: and blob:


def run_all(page: "playwright.Page", url: str) -> None:
    """Open a notebook, run all its cells from nothing, and wait until the last one is done."""
    page.goto(f"{url}?reset")  # not with the notebooks that were open before
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3", exact=False).first.wait_for()
    page.evaluate(KERNEL_READY)
    page.evaluate("() => window.jupyterapp.commands.execute('editmenu:clear-all')")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    try:
        page.wait_for_function(ALL_CELLS_RAN, timeout=300_000)
    except playwright.TimeoutError:
        page.screenshot(path=ARTIFACTS / "timeout.png")
        raise
    idle(page)
    page.wait_for_timeout(1000)  # what the last cell shows is drawn


def idle(page: "playwright.Page") -> None:
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for()


def assert_no_error(page: "playwright.Page") -> None:
    """Neither an error output nor a widget that says so, nor one that failed to be drawn."""
    for what in (
        ERROR,
        ".jp-OutputArea [role=alert]",
        ".jp-OutputArea .jupyter-widgets-error-widget",
    ):
        found = page.locator(what)
        assert found.count() == 0, found.first.inner_text()


def move_every_slider(page: "playwright.Page") -> int:
    """To its lower and its upper end, by keyboard, unless it is disabled; how many moved."""
    moved = 0
    sliders = page.locator(".jp-OutputArea [role=slider]:visible")
    for i in range(sliders.count()):
        slider = sliders.nth(i)
        if slider.evaluate("slider => slider.closest('[disabled]') !== null"):
            continue
        before = slider.get_attribute("aria-valuenow")
        slider.focus()
        seen = set()
        for key in ("Home", "End"):
            slider.press(key)
            page.wait_for_timeout(100)
            idle(page)
            seen.add(slider.get_attribute("aria-valuenow"))
        assert len(seen) == 2, f"slider {i} stays at {before}"
        assert_no_error(page)
        moved += 1
    return moved


def screenshot_of_everything(page: "playwright.Page", file: Path) -> None:
    """The notebook scrolls inside the page: make the window as high as the notebook."""
    cells = page.locator(".jp-Notebook .jp-Cell")
    height = sum(cell.bounding_box()["height"] + 10 for cell in cells.all())
    page.set_viewport_size({"width": 1400, "height": int(height) + 200})
    page.locator(".jp-Notebook .jp-WindowedPanel-outer").first.evaluate("e => e.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=file)
    page.set_viewport_size({"width": 1400, "height": 1000})


def tour_between(
    page: "playwright.Page", first: "playwright.Locator", last: "playwright.Locator", name: str
) -> None:
    """A screenshot from one cell down to another."""
    last.scroll_into_view_if_needed()
    top, bottom = first.bounding_box(), last.bounding_box()
    keep(page.screenshot(clip=top | {"height": bottom["y"] + bottom["height"] - top["y"]}), name)


def tour(shown: "playwright.Locator", name: str) -> None:
    """A screenshot of one thing, in a window that is higher than it."""
    page = shown.page
    page.set_viewport_size({"width": 1400, "height": int(shown.bounding_box()["height"]) + 400})
    page.wait_for_timeout(1000)
    keep(shown.screenshot(), name)
    page.set_viewport_size({"width": 1400, "height": 1000})


def keep(png: bytes, name: str) -> None:
    """For the artefacts, and in 128 colours for the tour if that is being made."""
    (ARTIFACTS / f"{name}.png").write_bytes(png)
    if folder := os.environ.get("FPKIT_TOUR"):
        picture = Image.open(BytesIO(png)).convert("RGB").quantize(128)
        picture.save(REPO / folder / f"{name}.png", optimize=True)


def widget_with(page: "playwright.Page", text: str) -> "playwright.Locator":
    """The outermost widget of the notebook that holds this text."""
    return page.locator(".jp-OutputArea .widget-vbox").filter(has_text=text).first


def pixels(widget: "playwright.Locator") -> str:
    """What the first heat map of a widget shows, as the browser drew it."""
    image = widget.locator(".js-plotly-plot .hm image").first
    image.wait_for(state="attached")
    return image.get_attribute("href") or image.get_attribute("xlink:href") or ""


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_and_its_sliders_move(lesson: str, light: str, page: "playwright.Page") -> None:
    run_all(page, f"{light}/{lesson}.ipynb")
    assert_no_error(page)
    if lesson in TOUR:
        tour(page.locator(".jp-OutputArea .widget-vbox").first, TOUR[lesson])
    move_every_slider(page)
    screenshot_of_everything(page, ARTIFACTS / f"{lesson}.png")


def test_explorer_trains_on_click_in_the_dark_theme(dark: str, page: "playwright.Page") -> None:
    run_all(page, f"{dark}/00_start_here.ipynb")
    assert page.locator('body[data-jp-theme-light="false"]').count() == 1
    explorer = widget_with(page, "Make model")
    explorer.scroll_into_view_if_needed()
    status = explorer.locator("[role=status]")
    before = pixels(explorer)
    assert before.startswith("data:image/png")
    for label, option in (("upsampling", "deconv"), ("activation", "tanh"), ("blocks", "1")):
        explorer.get_by_label(label, exact=True).select_option(label=option)
    playwright.expect(status).to_contain_text("Settings changed")
    explorer.get_by_role("button", name="Make model").click()
    playwright.expect(status).to_contain_text("K1-L1-Udeconv-Atanh-Nnone-Spost", timeout=60_000)
    playwright.expect(status).to_contain_text("residual", timeout=60_000)
    page.wait_for_timeout(1000)
    after = pixels(explorer)
    assert after != before
    explorer.get_by_label("show", exact=True).select_option(label="outputs / inputs")
    page.wait_for_timeout(1000)
    assert pixels(explorer) != after
    assert explorer.locator("figure img").count() == 4  # three from the lesson, one from here
    assert_no_error(page)
    explorer.screenshot(path=ARTIFACTS / "synthesis_explorer_dark.png")
    screenshot_of_everything(page, ARTIFACTS / "00_start_here_dark.png")


def test_every_slider_of_a_block_moves(light: str, page: "playwright.Page") -> None:
    run_all(page, f"{light}/02_why_upsampling_leaves_marks.ipynb")
    explorer = widget_with(page, "roughness")
    explorer.get_by_label("upsampling", exact=True).select_option(label="deconv")
    explorer.get_by_label("activation", exact=True).select_option(label="tanh")
    roughness = explorer.locator("[role=slider]").nth(3)
    roughness.press("End")  # the seed has a use
    idle(page)
    page.wait_for_timeout(1000)
    before = pixels(explorer)
    assert move_every_slider(page) == explorer.locator("[role=slider]").count() == 8
    assert pixels(explorer) != before


def test_an_exercise_says_what_is_wrong(light: str, page: "playwright.Page") -> None:
    run_all(page, f"{light}/00_start_here.ipynb")
    task = page.locator(".jp-Notebook .jp-MarkdownCell").filter(has_text="Exercise 1").first
    cell = page.locator(".jp-Notebook .jp-CodeCell").filter(has_text="peak-frequency").first
    verdict = cell.locator(".jp-OutputArea-output")
    playwright.expect(verdict).to_contain_text("not attempted yet")
    for answer, said in (("32", "not yet: 32 is beyond 0.5 cycles/pixel"), ("-0.25", "ok")):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.type(f'peak = {answer}\n\nteach.check("peak-frequency", peak)')
        page.keyboard.press("Control+Enter")
        playwright.expect(verdict).to_contain_text(said)
        if said != "ok":
            page.keyboard.press("Escape")
            tour_between(page, task, cell, "exercise")


# ---- the app -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(pictures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `fpkit app`, with the token that it prints; Ctrl-C must end it."""
    folder = tmp_path_factory.mktemp("world") / "open"
    for model in (HOSTILE[0], "two\nlines", "plain"):
        (folder / model).mkdir(parents=True)
        shutil.copy(pictures["deconv0"], folder / model / f"{HOSTILE[0]}.png")
    (folder / "way out").symlink_to(pictures["deconv0"].parent)
    command = [sys.executable, "-m", "fpkit", "app", "--no-browser", f"--port={free_port()}"]
    command += ["--folder", str(folder)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    # a shell has the jobs that it starts in the background ignore Ctrl-C, and so do their children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, text=True, **quiet) as server:
        signal.signal(signal.SIGINT, before)
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
        finally:
            server.kill()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files as somebody has them: images of two models, one too small, one damaged."""
    folder = tmp_path_factory.mktemp("pictures")
    zoo = Zoo.load()
    files = {}
    for upsample, model in MODELS.items():
        outputs = zoo.apply(model, procedural_images(4, 192, seed=len(upsample)))
        for i, image in enumerate(outputs[..., 16:-16, 16:-16]):
            pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            files[f"{upsample}{i}"] = folder / f"{upsample}{i}.png"
            Image.fromarray(pixels).save(files[f"{upsample}{i}"])
    files["small"], files["damaged"] = folder / "small.png", folder / "damaged.png"
    Image.new("RGB", (40, 40)).save(files["small"])
    files["damaged"].write_bytes(files["deconv0"].read_bytes()[:2000])
    return files


def answer_to(url: str, **headers: str) -> int:
    """Status of a request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_app_answers_only_to_those_with_the_token(app: str) -> None:
    server, token = app.split("/?")
    kernel = "/api/kernels/00000000-0000-0000-0000-000000000000"
    up = "/".join(["%2e%2e"] * 12)
    open_doors = ["voila/static/voila.js", "voila/templates/lab/static/voila.js"]
    open_doors += ["voila/labextensions/anywidget/package.json"]
    shut = [kernel, f"{kernel}/channels", "/api/contents", "/api/terminals", "/login", "/lab"]
    shut += ["/voila/files/app_page.py", "/voila/files/arch.py"]
    shut += [
        f"/voila/{here}/{up}/etc/passwd" for here in ("files", "static", "templates/lab/static")
    ]
    for path in ("/", *(f"/{door}" for door in open_doors), *shut):
        assert answer_to(server + path) == 403, path
        assert answer_to(f"{server}{path}?token=x") == 403, path
        assert answer_to(f"{server}{path}?{token}", Host="example.org") == 403, path
        assert answer_to(f"{server}{path}?{token}", Origin="http://example.org") == 403, path
    for path in open_doors:
        assert answer_to(f"{server}/{path}?{token}") == 200, path
    for path in shut:
        assert answer_to(f"{server}{path}?{token}") >= 400, path


FIND_KERNEL = r"""() => document.documentElement.outerHTML.match(
    /kernel_?id["': =]+([0-9a-f-]{36})/i)[1]"""
# The page's own socket, and a message of the page that its kernel must not run.
ASK_TO_RUN = """async ([kernel, file]) => {
    const socket = new WebSocket(`ws://${location.host}/api/kernels/${kernel}/channels`);
    await new Promise((opened, failed) => { socket.onopen = opened; socket.onerror = failed; });
    const message = (type, content) => socket.send(JSON.stringify({
        channel: "shell", content, metadata: {}, parent_header: {}, buffers: [],
        header: { msg_id: type, msg_type: type, username: "", session: "s", version: "5.3" },
    }));
    const answers = [];
    socket.onmessage = (event) => answers.push(JSON.parse(event.data).parent_header?.msg_id);
    message("execute_request", { code: `open(${JSON.stringify(file)}, "w")`, silent: false });
    message("kernel_info_request", {});
    while (!answers.includes("kernel_info_request")) await new Promise(r => setTimeout(r, 50));
    return answers;
}"""


def test_whoever_has_the_page_has_no_kernel(
    app: str, page: "playwright.Page", tmp_path: Path
) -> None:
    page.goto(app)
    page.get_by_text("Models you know").wait_for(timeout=120_000)
    kernel = page.evaluate(FIND_KERNEL)
    answers = page.evaluate(ASK_TO_RUN, [kernel, str(tmp_path / "made")])
    page.wait_for_timeout(1000)
    assert "execute_request" not in answers and not (tmp_path / "made").exists()
    assert str(REPO) not in page.content() and str(Path.home()) + "/" not in page.content()


def test_hostile_names_are_shown_and_do_nothing(
    app: str, page: "playwright.Page", pictures: dict[str, Path]
) -> None:
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(app)
    page.get_by_text("Models you know").wait_for(timeout=120_000)
    status = page.locator("[role=status]").first
    content = pictures["deconv0"].read_bytes()
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": content} for n in HOSTILE]
    typed = [name for name in HOSTILE if "\n" not in name]  # a field has one line
    for name in typed:
        page.get_by_label("model", exact=True).fill(name)
        page.get_by_label("model", exact=True).press("Tab")
        upload(page, "Upload its images", files[:1])
        playwright.expect(page.get_by_text(f"{visible(name)} (1)", exact=False)).to_be_visible()
    upload(page, "Upload images", files)
    playwright.expect(status).to_contain_text(f"{len(HOSTILE)} images on the desk")
    table = page.get_by_role("region", name="verdicts")
    for name in HOSTILE:
        playwright.expect(table).to_contain_text(visible(name))
    for name in typed:
        page.get_by_label("against", exact=True).select_option(label=visible(name))
        verdict = page.get_by_label("verdict", exact=True)
        playwright.expect(verdict).to_contain_text(visible(name))
    page.get_by_role("button", name="Enrol folder").click()
    playwright.expect(status).to_contain_text("way out: leads out of the folder")
    playwright.expect(page.get_by_text("plain (1)")).to_be_visible()
    playwright.expect(page.get_by_text("two\\nlines (1)")).to_be_visible()
    page.wait_for_timeout(1000)
    assert said == [] and page.evaluate("() => window.hit") is None
    inside = "img[src=x], a[href^=javascript], svg[onload], [onerror], .widget-html script"
    assert page.locator(inside).count() == 0
    page.set_viewport_size({"width": 1400, "height": 2200})
    page.screenshot(path=ARTIFACTS / "hostile_names.png")


def test_the_page_refuses_paths_and_large_files_and_says_so(
    app: str, page: "playwright.Page", tmp_path: Path, pictures: dict[str, Path]
) -> None:
    page.goto(app)
    page.get_by_text("Models you know").wait_for(timeout=120_000)
    message = page.locator("[role=status], [role=alert]").first
    for path in ("..", "way out", "../open/way out"):
        page.get_by_label("images in", exact=True).fill(path)
        page.get_by_role("button", name="Ask about folder").click()
        playwright.expect(message).to_contain_text(f"{path}: leads out of the folder")
    page.get_by_label("images in", exact=True).fill("/etc")
    page.get_by_role("button", name="Ask about folder").click()
    playwright.expect(message).to_contain_text("/etc: give a path inside open")
    large, bomb = tmp_path / "large.png", tmp_path / "bomb.png"
    with large.open("wb") as file:
        file.truncate(70 * 2**20)
    Image.new("L", (20_000, 20_000)).save(bomb)
    upload(page, "Upload images", [large, bomb, pictures["deconv0"]])
    playwright.expect(message).to_contain_text("1 image on the desk. Skipped 2")
    playwright.expect(message).to_contain_text("large.png: 70 MiB, the limit is 64 MiB")
    playwright.expect(message).to_contain_text("bomb.png: more than the limit of 16000000 pixels")
    assert str(tmp_path) not in page.content()
    page.screenshot(path=ARTIFACTS / "refused_uploads.png")


def upload(page: "playwright.Page", button: str, files: list) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(files)


def test_desk_names_the_model_of_an_uploaded_image(
    app: str, page: "playwright.Page", pictures: dict[str, Path]
) -> None:
    page.goto(app)
    page.get_by_text("Models you know").wait_for(timeout=120_000)
    status = page.locator("[role=status]").first
    for upsample in MODELS:
        page.get_by_label("model", exact=True).fill(upsample)
        page.get_by_label("model", exact=True).press("Tab")
        upload(page, "Upload its images", [pictures[f"{upsample}{i}"] for i in range(3)])
        playwright.expect(page.get_by_text(f"{upsample} (3)")).to_be_visible()
    asked = [pictures[name] for name in ("deconv3", "bilinear3", "small", "damaged")]
    upload(page, "Upload images", asked)
    playwright.expect(status).to_contain_text("2 images on the desk. Skipped 2")
    playwright.expect(status).to_contain_text("small.png")
    playwright.expect(status).to_contain_text("damaged.png")
    verdict = page.get_by_label("verdict", exact=True)
    playwright.expect(verdict).to_contain_text("made by deconv")
    rows = page.locator("table tr")
    for upsample in MODELS:
        row = rows.filter(has_text=f"{upsample}3.png").first
        playwright.expect(row.locator("td, th").nth(1)).to_contain_text(upsample)
    page.locator(".hm image").first.wait_for(state="attached")
    tour(page.locator(".widget-tab"), "attribution_desk")
    page.get_by_label("against", exact=True).select_option(label="bilinear3.png")
    playwright.expect(verdict).to_contain_text("bilinear3.png")
    page.wait_for_timeout(1500)
    assert page.locator("[role=alert]").count() == 0


def test_synthesis_in_the_app_can_be_cancelled(app: str, page: "playwright.Page") -> None:
    page.goto(app)
    page.get_by_text("Models you know").wait_for(timeout=120_000)
    page.get_by_role("tab", name="Synthesis").click()
    explorer = page.locator(".widget-vbox").filter(has_text="Make model").first
    status = explorer.locator("[role=status]").first
    explorer.locator("[role=slider]").nth(1).press("End")  # more steps than anybody waits for
    explorer.get_by_role("button", name="Make model").click()
    explorer.get_by_role("button", name="Cancel").click()
    playwright.expect(status).to_contain_text("ancelled", timeout=30_000)
    explorer.locator("[role=slider]").nth(1).press("Home")
    explorer.get_by_role("button", name="Make model").click()
    playwright.expect(status).to_contain_text("residual", timeout=60_000)
    assert page.locator("[role=alert]").count() == 0
    explorer.screenshot(path=ARTIFACTS / "synthesis_explorer_app.png")


# ---- the page of fpkit discover ----------------------------------------------------------------


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a folder of strangers: eight random decoders, two of them enrolled as known."""
    folder = tmp_path_factory.mktemp("strangers")
    for maker in range(8):
        decoder = RandomDecoder(maker)
        for seed, where in ((maker, "images"), (100 + maker, f"known/decoder {maker}")):
            if where == "images" or maker < 2:
                scenes = procedural_images(10, 192, seed=seed)
                made = decoder(scenes, generator=torch.Generator().manual_seed(0))
                for i, image in enumerate(made[..., 16:-16, 16:-16]):
                    write_png(folder / where / f"{i}{maker}.png", image)
    gallery, page = folder / "known.gallery", folder / "clusters.html"
    run, words = folder / "embeddings", ("--gallery", gallery, "--out", page, "--far", "0.05")
    for command in (
        ("enrol", gallery, folder / "known"),
        ("embed", folder / "images", "--out", run),
        ("discover", run, *words, "--pictures"),
    ):
        assert main([str(word) for word in command]) == 0
    return page


def test_the_page_of_discover_shows_clusters_pictures_and_names(
    clusters: Path, page: "playwright.Page"
) -> None:
    page.goto(clusters.as_uri())
    page.locator(".js-plotly-plot canvas").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    rows = page.locator("table tr")
    assert 6 <= rows.count() <= 14  # about eight clusters, and the head
    shown = "images => images.map(image => image.complete && image.naturalWidth)"
    widths = page.locator("figure img").evaluate_all(shown)
    assert len(widths) >= 35 and set(widths) == {96}
    named = rows.filter(has_text="decoder").locator("td:nth-child(5)").all_inner_texts()
    assert {"decoder 0", "decoder 1"} <= set(named)
    # every cluster in the key; a click on one hides its points
    keys = page.locator(".legendtext")
    assert keys.count() == rows.count() - 1
    page.locator(".legendtoggle").first.click()
    page.wait_for_timeout(800)
    first = "() => document.querySelector('.js-plotly-plot').data[0].visible"
    assert page.evaluate(first) == "legendonly"
    page.locator(".legendtoggle").first.click()
    page.wait_for_timeout(800)
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": 1400, "height": 1800})
    page.wait_for_timeout(4000)  # until plotly's hint is gone
    tour_between(page, page.locator(".plotly-graph-div"), rows.nth(4), "discover")

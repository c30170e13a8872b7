"""Names and paths from strangers: what is shown, what is read, what an upload may bring."""

import html
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fpkit import plots, scatter
from fpkit.attribution_desk import AttributionDesk
from fpkit.desk_data import Uploaded, from_files, from_folder, from_models, from_uploads, measure
from fpkit.extractor import load_extractor
from fpkit.images import ImageReadError, write_png
from fpkit.jail import Jail
from fpkit.names import as_html, as_label, options_of, visible, without_folders
from fpkit.panel import Panel
from fpkit.procedural import procedural_images
from fpkit.upload import MAX_FILE, MAX_FILES, MAX_TOTAL, MIB, Upload

HOSTILE = (
    "<img src=x onerror=\"window.hit='img'\">",
    "<script>window.hit='script'</script>",
    "<a href=\"javascript:window.hit='link'\">click</a>",
    "\"'><svg onload=window.hit='svg'>",
    "&lt;b&gt; &amp;amp;",
    "two\nlines\r\n",
    "photo\u202egnp.exe",  # shown as photoexe.png
    "\x1b[2J\x1b]0;title\x07",
    "nul\x00tab\tdel\x7f",
    "no text \udc80\udcff",
    "%{x} %(name)s {name} $name",
    "../../etc/passwd",
    "x" * 5000,
)


class Tags(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")], attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# ---- names -------------------------------------------------------------------------------------


@given(st.text(st.characters()) | st.sampled_from(HOSTILE))
def test_a_shown_name_prints_is_text_and_has_no_tag(name):
    assert visible(name).isprintable() and visible(visible(name)) == visible(name)
    visible(name).encode("utf-8")  # a message to the browser could not be sent
    for shown in (as_html(name), as_label(name)):
        parsed = Tags(f"<p title='{as_html(name)}'>{shown}</p>")
        assert parsed.tags == ["p"] and parsed.text == visible(name)


def test_plain_names_stay_as_they_are():
    for name in ("K2-L1-Udeconv", "bild 1 (2).png", "größe", "画像", "عکس", "a\\b"):
        assert visible(name) == as_html(name) == as_label(name) == name


def test_messages_lose_folders_but_nothing_else():
    for text, expected in {
        "/home/ann/a.png: no such file": "a.png: no such file",
        "C:\\Users\\ann\\zoo.json is missing": "zoo.json is missing",
        "no '/srv/zoo/zoo.json': make it": "no 'zoo.json': make it",
        "open /a/b/c.npz, not /d/e.npz.": "open c.npz, not e.npz.",
        "dcgan/0.png: 3/4 of 1 / 2 cycles/pixel": "dcgan/0.png: 3/4 of 1 / 2 cycles/pixel",
        "K1-L1/seed0 (2 of 4)": "K1-L1/seed0 (2 of 4)",
    }.items():
        assert without_folders(text) == expected


# ---- figures and widgets -----------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_no_figure_takes_a_name_for_markup(name):
    curve = (np.linspace(0, 0.5, 4), np.zeros(4))
    points = np.eye(3, 2)
    figures = [
        plots.radial_profiles({name: curve}, title=name),
        plots.score_bars({name: 0.5}, title=name),
        plots.spectrum_heatmap(np.zeros((8, 8)), title=name),
        plots.image_row({name: np.zeros((8, 8))}, title=name),
        scatter.scatter_figure(points, [name, "b", "b"], title=name),
    ]
    safe = html.escape(visible(name), quote=False)
    for figure in figures:
        texts = list(strings(json.loads(figure.to_json())["data"]))
        texts += strings(json.loads(figure.to_json())["layout"] | {"template": None})
        assert safe in texts
        if name != safe:
            assert name not in texts


def strings(value: object):
    """Every string in a nest of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def test_a_status_is_text_and_in_the_app_without_folders():
    panel = Panel()
    for name in HOSTILE:
        panel.status = f"Reading {name} ..."
        assert Tags(panel.message.value).tags == ["div"]
        assert Tags(panel.message.value).text == f"Reading {visible(name)} ..."
    panel.status = "Error: OSError: /home/ann/zoo.json"
    assert "/home/ann" in panel.message.value
    panel.hides_folders = True
    panel.status += ": broken"
    assert "/home/ann" not in panel.message.value and "zoo.json: broken" in panel.message.value


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("small")


@pytest.fixture(scope="module")
def png() -> bytes:
    pixels = (procedural_images(1, 136, seed=3)[0] * 255).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_hostile_names_on_the_desk_are_text(extractor, png):
    desk = AttributionDesk(extractor=extractor)
    scene = procedural_images(2, 136, seed=4)
    for i, name in enumerate(HOSTILE[:10]):
        desk.enrol(name, scene[i % 2 : i % 2 + 1])
    desk.controls.ask_upload.value = tuple(Uploaded(name=n, content=png) for n in HOSTILE)
    desk.wait(120)
    assert desk.models == HOSTILE[:10] and len(desk.images) == len(HOSTILE)
    known = {
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "p",
        "b",
        "span",
        "ul",
        "li",
    }
    for name in desk.models:  # each is compared with, and so named everywhere
        desk.against = name
        page = [desk.controls.table, desk.controls.enrolled, desk.message, desk.look.verdict]
        page += [desk.look.scores, desk.look.reason]
        for shown in page:
            assert set(Tags(shown.value).tags) <= known | {"img", "code"}
            shown.value.encode()
        assert as_html(name) in desk.look.verdict.value
    images = [tag for tag in Tags(desk.controls.table.value).tags if tag == "img"]
    assert len(images) == len(HOSTILE)  # the thumbnails
    for control in (desk.controls.choice, desk.controls.against, desk.controls.shown):
        "".join(control._options_labels).encode()
        assert all(label.isprintable() for label in control._options_labels)
    assert desk.static().height > 100


# ---- the folder of the page --------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder that may be read, with links out of it, beside one that may not."""
    image = procedural_images(1, 128, seed=0)[0]
    for file in ("open/dcgan/0.png", "secret/keys/1.png", "open-not/2.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / file, image)
    root = tmp_path / "open"
    (root / "way out").symlink_to(tmp_path / "secret" / "keys")
    (root / "dcgan" / "link.png").symlink_to(tmp_path / "secret" / "keys" / "1.png")
    (root / "dcgan" / "inside.png").symlink_to(root / "dcgan" / "0.png")
    (root / "loop").symlink_to(root / "loop")
    return tmp_path


OUT = (
    "..", "../secret", "dcgan/../../secret", "way out", "way out/1.png", "../open-not", "loop",
    "dcgan/\0", "dcgan/../../open-not", "x/../../secret", "dcgan/link.png",
)  # fmt: skip
ABSOLUTE = ("/", "/etc/passwd", "~", "~root", "\\\\server\\share", "//server/share")


def test_no_path_leads_out_of_the_folder(world):
    jail = Jail(world / "open")
    for text in OUT:
        with pytest.raises(ValueError, match="leads out") as refused:
            jail.path(text)
        assert str(world) not in str(refused.value) and "keys" not in str(refused.value)
    for text in (*ABSOLUTE, str(world / "secret"), str(world / "open")):
        with pytest.raises(ValueError, match="inside open"):
            jail.path(text)
    for text in ("", ".", "dcgan", "dcgan/../dcgan", "dcgan/inside.png", "not there"):
        assert jail.path(text).resolve().is_relative_to((world / "open").resolve())


@settings(max_examples=200)
@given(parts=st.lists(st.sampled_from(["..", ".", "dcgan", "way out", "/", "~", "", "\0", "a"])))
def test_whatever_is_allowed_is_inside(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "jail"
    (root / "dcgan").mkdir(parents=True, exist_ok=True)
    if not (root / "way out").is_symlink():
        (root / "way out").symlink_to(root.parent)
    for text in ("/".join(parts), os.sep.join(["dcgan", *parts])):
        try:
            path = Jail(root).path(text)
        except ValueError:
            continue
        assert os.path.realpath(path).startswith(os.path.realpath(root))


def test_a_page_without_a_folder_reads_nothing(world):
    for text in ("", ".", "dcgan", str(world), "~"):
        with pytest.raises(ValueError, match="takes uploads only"):
            Jail().path(text)
    assert not Jail().holds(world)
    with pytest.raises(NotADirectoryError, match="no such folder"):
        Jail(world / "nowhere")


def test_links_out_of_the_folder_are_named_but_not_followed(world):
    jail = Jail(world / "open")
    with pytest.raises(ValueError, match="open: expected one folder per model|no images") as error:
        (world / "open" / "empty").mkdir()
        from_folder("empty", jail=jail)
    assert str(world) not in str(error.value)
    models = from_models("", jail=jail)
    assert [source.name for source in models["dcgan"]] == ["0.png", "inside.png", "link.png"]
    assert [source.name for source in models["way out"]] == ["way out"]  # and not what is there
    readable = [s.name for sources in models.values() for s in sources if reads(s)]
    assert readable == ["0.png", "inside.png"]
    asked = [source.name for source in from_folder("", jail=jail)]
    assert "dcgan/0.png" in asked and not any("1.png" in name for name in asked)
    anywhere = from_models(world / "open")  # in a notebook, whose reader has a kernel
    assert [reads(source) for source in anywhere["way out"]] == [True]


def reads(source) -> bool:
    try:
        return source.load()[0].shape == (3, 128, 128)
    except ImageReadError as error:
        assert str(error) == f"{source.name}: leads out of the folder that this page may read"
        return False


def test_a_link_that_is_turned_later_is_not_followed(world):
    file = world / "open" / "dcgan" / "0.png"
    (source,) = from_files([file], jail=Jail(world / "open"))
    assert reads(source)
    file.unlink()
    file.symlink_to(world / "secret" / "keys" / "1.png")
    assert not reads(source)


def test_what_is_said_of_a_file_is_said_of_the_pixels_that_were_read(world, extractor, monkeypatch):
    """The file becomes a link to a JPEG outside while the image is embedded."""
    file, outside = world / "open" / "dcgan" / "0.png", world / "secret" / "other.jpg"
    Image.new("RGB", (128, 128)).save(outside, quality=50)
    (source,) = from_files([file], jail=Jail(world / "open"))
    embed = type(extractor).embed

    def turned(self, images):
        file.unlink()
        file.symlink_to(outside)
        return embed(self, images)

    monkeypatch.setattr(type(extractor), "embed", turned)
    evidence = measure(source, extractor).evidence
    assert (evidence.format, evidence.jpeg_quality) == ("PNG", None)


def test_errors_of_files_in_the_folder_name_no_other(world):
    broken = world / "open" / "dcgan" / "broken.png"
    broken.write_bytes(b"")
    (source,) = from_files([broken], jail=Jail(world / "open"))
    with pytest.raises(ImageReadError) as error:
        source.load()
    assert str(error.value) == "broken.png: the file is empty"


def test_a_desk_with_a_folder_enrols_from_it_and_from_nowhere_else(world, extractor):
    desk = AttributionDesk(extractor=extractor, jail=Jail(world / "open"))
    assert "inside open" in desk.controls.enrol_path.placeholder
    desk.controls.enrol_path.value = ""
    desk.controls.enrol_button.click()
    desk.wait(60)
    assert desk.known.gallery.counts == {"dcgan": 2} and len(desk.skipped) == 2
    for text in (str(world / "secret"), "../secret", "way out", "~"):
        for field, button in (("enrol_path", "enrol_button"), ("ask_path", "ask_button")):
            getattr(desk.controls, field).value = text
            getattr(desk.controls, button).click()
            desk.wait(60)
            assert desk.status.startswith("Error") and desk.models == ("dcgan",)
            assert not desk.images and str(world.parent) not in desk.message.value
    closed = AttributionDesk(extractor=extractor, jail=Jail())
    assert closed.controls.ask_path.layout.display == "none"


# ---- uploads -----------------------------------------------------------------------------------


def send(upload: Upload, *messages: dict, parts: tuple[bytes, ...] = ()) -> None:
    for message in messages:
        upload._handle_custom_msg(message, [])
    for part in parts:
        upload._handle_custom_msg({"kind": "part"}, [memoryview(part)])


def file(name: str, size: int) -> dict:
    return {"kind": "file", "name": name, "size": size}


BEGIN, END = {"kind": "begin"}, {"kind": "end"}


def test_an_upload_arrives_in_parts(png):
    upload = Upload("Upload")
    send(upload, BEGIN, file("a.png", len(png)), parts=(png[:1000], png[1000:2000], png[2000:]))
    send(upload, file("none.png", 0))
    assert upload.value == ()
    send(upload, END)
    assert upload.value == (Uploaded(name="a.png", content=png), Uploaded(name="none.png"))
    first, second = from_uploads(upload.value)
    assert first.load()[0].shape == (3, 136, 136)
    with pytest.raises(ImageReadError, match=r"none.png: the file is empty"):
        second.load()


def test_what_is_too_large_is_refused_with_the_reason_and_not_kept():
    upload = Upload("Upload")
    send(upload, BEGIN, file("large.png", MAX_FILE + 1), parts=(b"x" * 1000,))
    assert upload._files[0].content == b""
    most = MAX_TOTAL // MAX_FILE
    send(upload, *(file(f"{i}.png", MAX_FILE) for i in range(most + 1)), END)
    large, *rest = upload.value
    assert large.refused == "64 MiB, the limit is 64 MiB for one file: crop it"
    assert "of 67108864 bytes arrived" in rest[0].refused
    assert "256 MiB at once" in rest[-1].refused
    (source,) = from_uploads([large])
    with pytest.raises(ImageReadError, match=r"large.png: 64 MiB, the limit"):
        source.load()


def test_too_many_files_and_more_than_was_said():
    upload = Upload("Upload")
    send(upload, BEGIN, *(file(f"{i}.png", 1) for i in range(MAX_FILES + 5)), parts=(b"x",))
    send(upload, END)
    assert len(upload.value) == MAX_FILES + 1
    assert upload.value[-1] == Uploaded(name="5 files", refused="more than 1000 files at once")
    send(upload, BEGIN, file("a.png", 3), parts=(b"ab", b"cdef"))
    assert upload._files[0].content == b""
    send(upload, file("b.png", 3), {"kind": "unreadable"}, END)
    assert "more than the 3 bytes" in upload.value[0].refused
    assert upload.value[1].refused == "the browser cannot read it"


def test_messages_that_make_no_sense_change_nothing():
    upload = Upload("Upload")
    send(upload, END, parts=(b"x",))
    nonsense = [None, 3, [], {}, {"kind": []}, {"kind": "file"}, file("a", -1), file("a", True)]
    nonsense += [file("a", 1.5), file(3, 1), file("a", "1"), {"kind": "unreadable"}]
    send(upload, BEGIN, *nonsense, END)
    assert upload.value == ()
    send(upload, BEGIN, file("n" * 9999, 0), END)
    assert len(upload.value[0].name) == 255
    upload.set_state({"value": ["x"], "_max_file": 2 * MAX_FILE})
    assert upload.value[0].name == "n" * 255
    send(upload, BEGIN, file("a", MAX_FILE + 1), END)  # the page does not set the limits
    assert "the limit is 64 MiB" in upload.value[0].refused


def test_limits_leave_room_for_messages():
    from fpkit.app_server import MAX_MESSAGE

    upload = Upload("Upload")
    assert 2 * upload._part < 10 * MIB < MAX_MESSAGE  # of Jupyter, of the app


def test_an_upload_that_is_refused_is_named_on_the_desk(extractor, png):
    desk = AttributionDesk(extractor=extractor)
    desk.enrol("a", torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    upload = desk.controls.ask_upload
    send(upload, BEGIN, file("huge.tif", 300 * MIB), file("a.png", len(png)), parts=(png,))
    send(upload, END)
    desk.wait(60)
    assert [image.name for image in desk.images] == ["a.png"]
    assert "Skipped 1: huge.tif: 300 MiB, the limit is 64 MiB" in desk.status


def test_options_mean_the_exact_name():
    assert options_of(["a\nb", "c"]) == (("a\\nb", "a\nb"), ("c", "c"))

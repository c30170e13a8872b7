"""A button that uploads files in parts, within limits, and says what it refused."""

from dataclasses import dataclass, field
from typing import Any

import anywidget
import traitlets

from fpkit.desk_data import Uploaded

MIB = 2**20
MAX_FILE = 64 * MIB
MAX_TOTAL = 256 * MIB  # of one upload: all of it waits in memory
MAX_FILES = 1000
PART = 2 * MIB  # Jupyter cuts connections that send messages of more than 10 MiB
_MAX_NAME = 255

# The browser refuses what is too large before it reads it. The limits hold in `Upload` too, for
# messages that this script did not send.
_SCRIPT = """
function render({ model, el }) {
  const button = document.createElement("button");
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.hidden = true;
  button.type = "button";
  button.className = "jupyter-widgets jupyter-button widget-button";
  const redraw = () => {
    button.textContent = model.get("description");
    button.title = model.get("tooltip");
    button.style.width = model.get("width");
    button.disabled = model.get("disabled");
    input.accept = model.get("accept");
  };
  redraw();
  model.on("change", redraw);
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const [files, part] = [[...input.files], model.get("_part")];
    input.value = "";  // the same file may be chosen again
    button.disabled = true;
    model.send({ kind: "begin" });
    let room = model.get("_max_total");
    for (const file of files) {
      model.send({ kind: "file", name: file.name, size: file.size });
      if (file.size > model.get("_max_file") || file.size > room) continue;
      room -= file.size;
      try {
        for (let at = 0; at < file.size; at += part) {
          const bytes = await file.slice(at, at + part).arrayBuffer();
          model.send({ kind: "part" }, undefined, [bytes]);
        }
      } catch (error) {
        model.send({ kind: "unreadable" });
      }
    }
    model.send({ kind: "end" });
    redraw();
  });
  el.append(button, input);
  return () => model.off("change", redraw);
}
export default { render };
"""


@dataclass
class _Arriving:
    """A file of which parts may be missing."""

    name: str
    size: int
    refused: str = ""
    content: bytearray = field(default_factory=bytearray)

    def done(self) -> Uploaded:
        refused = self.refused
        if not refused and len(self.content) != self.size:
            refused = f"{len(self.content)} of {self.size} bytes arrived: upload it again"
        return Uploaded(
            name=self.name, refused=refused, content=b"" if refused else bytes(self.content)
        )


class Upload(anywidget.AnyWidget):
    """A button that uploads files.

    Unlike an `ipywidgets.FileUpload`, which sends all files as one message (and if that is too
    large the connection is cut without a word), it sends them in parts, and files beyond the
    limits (64 MiB each, 256 MiB and 1000 files at once) arrive as refused, with the reason.

    Parameters
    ----------
    description, tooltip, accept, width : str
        Text of the button, its tooltip, the file types offered first, its width in CSS.

    Attributes
    ----------
    disabled : bool (trait)
    value : tuple of Uploaded (trait)
        The last upload, once all of it is here. It stays in the kernel.
    """

    _esm = _SCRIPT
    description = traitlets.Unicode().tag(sync=True)
    tooltip = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode().tag(sync=True)
    width = traitlets.Unicode("170px").tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)
    _part = traitlets.Int(PART, read_only=True).tag(sync=True)
    _max_file = traitlets.Int(MAX_FILE, read_only=True).tag(sync=True)
    _max_total = traitlets.Int(MAX_TOTAL, read_only=True).tag(sync=True)
    value = traitlets.Tuple()

    def __init__(self, description: str, *, accept: str = "", width: str = "170px") -> None:
        super().__init__(description=description, tooltip=description, accept=accept, width=width)
        self._files: list[_Arriving] = []
        self._room = MAX_TOTAL
        self._left_out = 0
        self.on_msg(self._received)

    def _received(self, _: object, message: Any, buffers: list[Any]) -> None:
        """One message of the page; what makes no sense is ignored."""
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "begin":
            self._files, self._room, self._left_out = [], MAX_TOTAL, 0
        elif kind == "file":
            self._begin_file(message)
        elif kind == "part" and self._files:
            self._take(self._files[-1], b"".join(bytes(part) for part in buffers))
        elif kind == "unreadable" and self._files:
            self._refuse(self._files[-1], "the browser cannot read it")
        elif kind == "end":
            files = [file.done() for file in self._files]
            if self._left_out:
                why = f"more than {MAX_FILES} files at once"
                files.append(Uploaded(name=f"{self._left_out} files", refused=why))
            self._files = []
            self.value = tuple(files)

    def _begin_file(self, message: dict) -> None:
        if len(self._files) >= MAX_FILES:
            self._left_out += 1
            return
        name, size = message.get("name"), message.get("size")
        if not isinstance(name, str) or type(size) is not int or size < 0:
            return
        file = _Arriving(name[:_MAX_NAME], size)
        self._files.append(file)
        if size > MAX_FILE:
            self._refuse(file, f"{_mib(size)}, the limit is {_mib(MAX_FILE)} for one file: crop it")
        elif size > self._room:
            self._refuse(
                file, f"more than {_mib(MAX_TOTAL)} at once: upload it by itself, after these"
            )
        else:
            self._room -= size

    def _take(self, file: _Arriving, data: bytes) -> None:
        if file.refused or self._left_out:
            return
        if len(file.content) + len(data) > file.size:
            self._refuse(file, f"more than the {file.size} bytes that it was said to have")
        else:
            file.content += data

    def _refuse(self, file: _Arriving, reason: str) -> None:
        file.refused = reason
        file.content = bytearray()


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"

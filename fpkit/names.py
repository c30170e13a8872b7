"""Names from strangers, as they may be shown: of files, folders and models.

A name may hold anything: markup, a line break, an escape sequence of the terminal, a mark that
turns the direction of what follows, bytes that are no text. What is stored stays exact; what is
shown goes through here.
"""

import html
import re
from collections.abc import Iterable

_FOLDERS = re.compile(r"""(?<![\w.…\\/])(?:[A-Za-z]:)?[\\/][^\s'"<>|:;,]*[\\/]""")


def visible(text: str) -> str:
    r"""The text with every character spelled out that a reader could not see, or that acts.

    Those are control characters, line breaks, marks of direction and of no width, and half
    surrogates (a byte of a file name that is no text).

    Examples
    --------
    >>> print(visible("a\nb\u202egnp.exe"))
    a\nb\u202egnp.exe
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def as_html(text: str) -> str:
    """What shows this text, and nothing but it, in HTML or in a quoted attribute.

    Examples
    --------
    >>> as_html("<img src=x>")
    '&lt;img src=x&gt;'
    """
    return html.escape(visible(text))


def as_label(text: str) -> str:
    """What shows this text in a figure: plotly reads tags, such as links, in titles and labels.

    Examples
    --------
    >>> as_label('<a href="https://example.org">A & B</a>')
    '&lt;a href="https://example.org"&gt;A &amp; B&lt;/a&gt;'
    """
    return html.escape(visible(text), quote=False)


def options_of(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    r"""Options of a dropdown: what it shows, and what it means.

    Examples
    --------
    >>> options_of(["a\tb"])
    (('a\\tb', 'a\tb'),)
    """
    return tuple((visible(name), name) for name in names)


def without_folders(text: str) -> str:
    """The text with absolute paths cut down to their last part, for readers elsewhere.

    Examples
    --------
    >>> without_folders("/home/ann/zoo/zoo.json: no such file")
    'zoo.json: no such file'
    """
    return _FOLDERS.sub("", text)

"""HTML and SVG as values. All text is escaped where it is put in: there is no other way in."""

import html

_VOID = ("img", "meta", "wbr")  # elements without an end tag


class Markup(str):
    """Text that is HTML already. Only the functions of this module make it."""


def tag(name: str, /, *children, **attributes) -> Markup:
    """<name attributes>children</name>; text among the children, and every value, is escaped.

    A child is Markup, text, a number, None (nothing), or a list of these. In an attribute's name
    `_` stands for `-`, and a last `_` is dropped; one that is None is left out.

    >>> tag("td", "<script>", class_="name", data_v=1)
    '<td class="name" data-v="1">&lt;script&gt;</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _VOID else f"</{name}>"
    return Markup(f"<{name}{given}>{join(children)}{end}")


def join(children) -> Markup:
    """Children one after the other, in the forms that `tag` takes."""
    return Markup("".join(map(_child, children)))


def raw(text: str) -> Markup:
    """Text of this package that is not escaped: its style sheet and its script."""
    return Markup(text)


def _child(child):
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return html.escape(str(child))

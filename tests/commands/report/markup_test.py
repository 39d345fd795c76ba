import pytest

from softmax_jax.commands.report.markup import Markup, join, raw, tag

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror="a()">', "a&amp;b", "'x'", "]]>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_out_as_it_went_in_and_is_never_markup(parse, text):
    parsed = parse(tag("p", text, [text, [text]], title=text))
    assert parsed.elements == [("p", {"title": text})]
    assert "".join(parsed.texts) == 3 * text


def test_what_was_made_here_is_not_escaped_twice():
    inner = tag("b", "<")
    assert tag("p", inner, join([inner, "<"]), raw("<br>")) == (
        "<p><b>&lt;</b><b>&lt;</b>&lt;<br></p>"
    )
    assert isinstance(inner, Markup)


def test_text_joined_to_markup_is_text_again():
    """Markup + text is a plain string, and so is escaped as a whole where it is put in."""
    assert tag("p", tag("b") + "<i>") == "<p>&lt;b&gt;&lt;/b&gt;&lt;i&gt;</p>"


def test_names_of_attributes_and_what_is_left_out():
    assert tag("a", None, 7, class_="x", stroke_width=2, id=None) == (
        '<a class="x" stroke-width="2">7</a>'
    )
    assert tag("img", src="x") == '<img src="x">'

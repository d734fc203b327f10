"""Text of others within Markdown of ours: it stays text, on one line, whatever it holds."""

import re

from nightscore.errors import shorten

LONGEST = 1000


def plain(text: object) -> str:
    r"""Return text that Markdown shows as it is: no links, no images, no HTML, no cell's or line's end.

    >>> print(plain("see [here](https://example.com) | **now**"))
    see \[here\]\(https\://example.com\) \| \*\*now\*\*
    >>> print(plain("<b>\n# met"))
    &lt;b&gt; \# met
    """
    line = " ".join(shorten(text, LONGEST).split())
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!]|:(?=//))", r"\\\1", escaped)

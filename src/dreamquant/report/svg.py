"""SVG drawn as text: elements, scales and ticks that the charts share.

Charts are drawn here rather than by a plotting library in the page: a page with its numbers in
plain SVG is small, prints, follows the reader's colours, and can be read without JavaScript.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(name: str, *content: Markup | str, **attributes: object) -> Markup:
    """``<name attribute="value">content</name>``, escaped where it is not markup yet.

    Underscores of attribute names become hyphens; a trailing one is dropped, as in ``class_``.
    Attributes that are ``None`` are left out.
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _text(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(
        Markup(name), given, Markup("").join(escape(part) for part in content), Markup(name)
    )


def picture(width: float, height: float, label: str, *content: Markup, class_: str) -> Markup:
    """An image of ``width`` by ``height`` units that scales with the page, and says what it is."""
    return element(
        "svg",
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def words(
    text: str, x: float, y: float, *, anchor: str = "start", class_: str = "tick", **more: object
) -> Markup:
    """Text with its baseline at ``y``."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **more: object) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)


@dataclass(frozen=True)
class Scale:
    """Maps values ``low .. high`` to positions ``start .. end`` on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers between ``low`` and ``high``, both ends included if round."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    step = _round_step(span / max(count - 1, 1))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def short(value: float) -> str:
    """A number in up to four digits, for ticks and tips."""
    return "0" if abs(value) < 1e-12 else f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

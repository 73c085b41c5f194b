"""A rollout as a drawing: how many tenants were through when, wave by wave, and what failed.

Plain SVG with no script and no font of its own, so it can be put into a page, a ticket or a repository.
"""

from __future__ import annotations

from datetime import datetime
from xml.sax.saxutils import escape

from controlplane.domain.rollout import MemberState
from controlplane.store import rollout, rollout_member
from controlplane.store.registry import Connection

WIDTH, HEIGHT = 840, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 44, 40
WAVES = ("#4e79a7", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f")
FAILED = "#e15759"
TICKS = 5


def draw(conn: Connection, rollout_id: int) -> str:
    """The rollout so far. Raises NotFound."""
    row = rollout.get(conn, rollout_id)
    counts = rollout_member.counts(conn, rollout_id)
    ended = rollout_member.timeline(conn, rollout_id)
    title = f"Rollout {row.id} of release {row.release}: {row.state}, {counts.done} of {counts.total}"
    return plot(title, ended, total=counts.total)


def plot(title: str, ended: list[tuple[datetime, datetime, int, str]], *, total: int) -> str:
    """`ended`: (started, finished, wave, state) of each member, in the order of their end."""
    start = min((began for began, *_ in ended), default=None)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    if start is None:
        return "\n".join([*parts, f'<text x="{LEFT}" y="80">nobody is through yet</text>', "</svg>"])
    span = max((max(end for _, end, *_ in ended) - start).total_seconds(), 0.001)

    def x(moment: datetime) -> float:
        return LEFT + (moment - start).total_seconds() / span * (WIDTH - LEFT - RIGHT)

    def y(count: int) -> float:
        return HEIGHT - BOTTOM - count / max(total, 1) * (HEIGHT - TOP - BOTTOM)

    parts += _axes(span, total)
    done, last = 0, (x(start), y(0))
    for _, finished, wave, state in ended:
        colour = WAVES[wave % len(WAVES)]
        if state == MemberState.DONE:
            done += 1
            at = (x(finished), y(done))
            parts.append(
                f'<path d="M{last[0]:.1f} {last[1]:.1f}H{at[0]:.1f}V{at[1]:.1f}"'
                f' fill="none" stroke="{colour}" stroke-width="2"/>'
            )
            last = at
        elif state == MemberState.FAILED:
            parts.append(f'<circle cx="{x(finished):.1f}" cy="{y(done):.1f}" r="4" fill="{FAILED}"/>')
    parts += _legend(sorted({wave for *_, wave, _ in ended}))
    return "\n".join([*parts, "</svg>"])


def _axes(span: float, total: int) -> list[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = [f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#888"/>']
    for tick in range(TICKS + 1):
        part = tick / TICKS
        across, up = LEFT + part * (right - LEFT), floor - part * (floor - TOP)
        lines.append(
            f'<text x="{across:.0f}" y="{floor + 18}" text-anchor="middle">{span * part:.1f} s</text>'
        )
        lines.append(f'<text x="{LEFT - 6}" y="{up + 4:.0f}" text-anchor="end">{round(total * part)}</text>')
        lines.append(f'<path d="M{LEFT} {up:.0f}H{right}" stroke="#eee"/>')
    return lines


def _legend(waves: list[int]) -> list[str]:
    found = [(f"wave {wave + 1}", WAVES[wave % len(WAVES)]) for wave in waves] + [("failed", FAILED)]
    lines = []
    for position, (name, colour) in enumerate(found[:8]):
        across = LEFT + 12 + position * 84
        lines.append(f'<rect x="{across}" y="{TOP + 4}" width="10" height="10" fill="{colour}"/>')
        lines.append(f'<text x="{across + 14}" y="{TOP + 13}">{name}</text>')
    return lines

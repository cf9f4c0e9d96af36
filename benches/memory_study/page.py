"""From figures to the page: markdown tables between markers, and how far two runs agree. Measures nothing.

Figures are kept as `{"tables": {table: {row: {column: figure or text}}}, "about": {table: how and on what}}`.
"""

import re
from dataclasses import dataclass

# An interval wider than so many tolerances says nothing about whether a figure has changed.
UNSURE_TOLERANCES = 2.0


@dataclass
class Column:
    """One column: the key of its figures, its head, and when two of them are the same."""

    key: str
    head: str
    unit: int = 1  # bytes of one unit
    digits: int = 1
    near: float = 8.0  # so many units apart is no difference
    ratio: float = 0.10  # nor is this part of the value

    def text(self, cell):
        if isinstance(cell, str):
            return cell
        if cell is None or cell["value"] is None:
            return "n/a"
        # More digits than the interval allows would say what is not known.
        digits = 0 if abs(cell["value"] / self.unit) >= 1_000 else self.digits
        shown = lambda value: unsigned_zero(f"{value / self.unit + 0.0:,.{digits}f}")
        if "low" in cell:
            return shown(cell["value"]) + (f" ({shown(cell['low'])} .. {shown(cell['high'])})" if cell["low"] is not None else "")
        return shown(cell["value"]) + (f" ± {shown(cell['sure'])}" if cell["sure"] is not None else "")

    def verdict(self, old, new):
        """Why two figures do not agree: "" if they do, None if they can't be compared."""
        if any(cell is None or isinstance(cell, str) for cell in (old, new)):
            return None
        before, after = old["value"], new["value"]
        if before is None or after is None:
            return None if before is after else "not known both times"
        near = max(self.near * self.unit, self.ratio * abs(before))
        was, now = half(old), half(new)
        if now > UNSURE_TOLERANCES * near:
            return UNSURE
        return "differs" if abs(before - after) > near + (was ** 2 + now ** 2) ** 0.5 else ""


def half(cell):
    """Half of a figure's interval, the longer half of a ratio's."""
    if "low" in cell:
        return 0.0 if cell["low"] is None else max(cell["high"] - cell["value"], cell["value"] - cell["low"])
    return cell["sure"] or 0.0


def unsigned_zero(shown):
    return shown if re.search("[1-9]", shown) else shown.replace("-", "", 1)


KIB, MIB = 1 << 10, 1 << 20
USER = Column("user", "bytes a connection")
STEPS = Column("steps", "connections")

# An empty runtime and what it keeps are its collector's moods: far apart is no difference.
COMPARED = [Column("empty", "empty, MiB", MIB, 1, near=2.0), USER,
            Column("kept", "kept of each after all have left", near=500, ratio=0.5)]

TABLES = {
    "states": ("state", [STEPS, USER]),
    "parts": ("part", [Column("bytes", "bytes a connection", near=4.0)]),
    "leaving": ("then", [Column("came", "bytes for each that came"), Column("stay", "bytes for each that stays", digits=0, near=20),
                         Column("kept", "KiB in all", KIB, 0, near=400)]),
    "kernel": ("object", [Column("each", "bytes of one", digits=0, near=1), Column("server_objects", "server's end", digits=2, near=0.2),
                          Column("client_objects", "client's end", digits=2, near=0.2),
                          Column("server", "server's end, bytes", digits=0, near=60),
                          Column("client", "client's end, bytes", digits=0, near=60)]),
    "buffers": ("connection", [Column("send", "unsent or unacknowledged", digits=0, near=25_000),
                               Column("receive", "received and unread", digits=0, near=2_000),
                               Column("server", "the server's socket, headers and all", digits=0, near=25_000),
                               Column("client", "the client's", digits=0, near=4_000)]),
    "settings": ("setting", [Column("changes", "changes"), Column("before", "bytes with the first", near=20),
                             Column("after", "with the second", near=20)]),
    "allocators": ("allocator", [Column("empty", "empty server, KiB", KIB, 0, near=300), Column("idle", "idle, bytes a connection"),
                                 Column("stalled", "stalled, bytes a connection", digits=0, near=200),
                                 Column("kept", "KiB kept after all left", KIB, 0, near=600, ratio=0.3)]),
    "others": ("server", [Column("version", "version"), Column("subscribed", "subscribed"), *COMPARED, Column("times", "times Fantail's", near=1.0, ratio=0.2)]),
    "tls": ("server", [Column("version", "version"), Column("subscribed", "subscribed"), *COMPARED, Column("times", "times the first row's", near=0.1, ratio=0.2)]),
}
# What --quick is judged by: the same on every machine, and on every one with the same kernel.
EVERYWHERE, SAME_KERNEL = ("layout", "states"), ("kernel", "buffers")
# What other programs do is no figure of ours. They have files, too, so a single launch says little of those, nor of the
# sum that they are part of.
NOT_OURS = ("all other", "`Slab`")
# A cache that is in no older run may be theirs as well, and how unsure the kernel's figures are is their doing.
NEW, UNSURE = "is new", "too unsure to tell"
SHARED = ("`dentry`", "`lsm_", "`kmalloc", "sum: ")


def begin(table):
    return f"<!-- table {table}: written by docs/reproduce.sh -->\n\n"


END = "\n<!-- end of table -->\n"


def listed(numbers):
    """"2,000, 6,000 and 10,000"."""
    words = [f"{number:,}" for number in numbers]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def beside(table, about, has_steps):
    """How a table was measured, and on what."""
    text = ""
    if about.get("launches"):
        where = "each of a row's steps" if has_steps else f"{listed(about['steps'])} connections"
        one = "launch" if about["launches"] == 1 else "launches"
        text = f"{about['launches']} {one} at {where}"
        text += "".join(f" ({row}: {count})" for row, count in about.get("more", {}).items())
        text += f", in an order drawn with seed {about['seed']}; " if about["seed"] else ", one after the other; "
        text += f"{about['again']} of {about['planned']} repeated after a failure"
        text += f", {about['missing']} given up" if about["missing"] else ""
        text += f", memory still moved at the end of {about['unsettled']}" if about.get("unsettled") else ""
        text += f" ([each of them](memory/{table}.csv)). "
    return text + (f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {about['libc']}, {about['compiler']}, "
                   f"commit {about['commit']}, {about['date']}."
                   + "".join(f" Later, apart from the others: {row} ({when})." for row, when in about.get("apart", {}).items())
                   + "\n\n")


def markdown(table, rows, about):
    """The lines of one table."""
    if table == "layout":
        return beside(table, about, False) + layout_markdown(rows)
    first, columns = TABLES[table]
    text = beside(table, about, any("steps" in cells for cells in rows.values()) or table in ("settings", "allocators"))
    text += f"| {first} | " + " | ".join(column.head for column in columns) + " |\n"
    text += "| --- |" + "".join(" --- |" if is_text(rows, column) else " ---: |" for column in columns) + "\n"
    for name, cells in rows.items():
        text += f"| {name.strip()} | " + " | ".join(column.text(cells.get(column.key)) for column in columns) + " |\n"
    return text


def is_text(rows, column):
    return any(isinstance(cells.get(column.key), str) for cells in rows.values())


def layout_markdown(structs):
    text = "| struct | offset | bytes | field |\n| --- | ---: | ---: | --- |\n"
    for struct in structs:
        text += f"| **{struct['name']}** | | **{struct['bytes']}** | {struct['when']} |\n"
        for field in struct["fields"]:
            text += f"| | {field['offset']} | {field['bytes']} | `{field['name']}` |\n"
        if struct["padding"]:
            text += f"| | | {struct['padding']} | (padding) |\n"
    return text


def filled(page, figures):
    """The page with every table between its markers written anew."""
    for table, rows in figures["tables"].items():
        if table not in figures["about"]:
            continue
        start = page.find(begin(table))
        end = page.find(END, start)
        if start < 0 or end < 0:
            raise SystemExit(f"the page has no place for the table {table}")
        page = page[:start + len(begin(table))] + markdown(table, rows, figures["about"][table]) + page[end:]
    return page


class Comparison:
    """How far a run agrees with an older one."""

    def __init__(self, old, new, gated=()):
        self.lines, self.agree, self.all, self.failed = [], 0, 0, False
        for table, rows in new["tables"].items():
            before = old["tables"].get(table)
            if before is None:
                self.lines.append(f"{table}: nothing to compare with")
                self.failed |= table in gated
                continue
            seen = self.layout(before, rows) if table == "layout" else self.cells(table, before, rows)
            for line, why in seen:
                self.all += 1
                self.agree += not why
                by_chance = line.startswith(SHARED) or (table in SAME_KERNEL and why in (NEW, UNSURE))
                self.failed |= bool(why) and table in gated and not by_chance
                if why:
                    self.lines.append(f"{table}: {line}: {why}")

    def layout(self, before, rows):
        for struct in rows:
            yield struct["name"], "" if struct in before else "has changed"

    def cells(self, table, before, rows):
        for name, cells in rows.items():
            if name.startswith(NOT_OURS):
                continue
            if name not in before:
                yield name, NEW
                continue
            for column in TABLES[table][1]:
                was, now = before[name].get(column.key), cells.get(column.key)
                why = column.verdict(was, now)
                if why is not None:
                    yield f"{name}: {column.head}: {column.text(was)} then, {column.text(now)} now", why

    def text(self):
        return "\n".join([*self.lines, f"{self.agree} of {self.all} figures agree"])


def gated(old, new):
    """The tables of a quick run that may fail it."""
    kernels = {about["kernel"] for figures in (old, new) for table, about in figures["about"].items() if table in SAME_KERNEL}
    return EVERYWHERE + (SAME_KERNEL if len(kernels) == 1 else ())

"""From figures to the page: markdown tables between markers, and what differs between two runs. Measures nothing.

Figures are kept as `{"tables": {table: {row: {column: {"value", "sure"} or text}}}, "machine": …}`.
"""

import re
from dataclasses import dataclass


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
        value, sure = cell["value"] / self.unit, cell["sure"]
        # More digits than the interval allows would say what is not known.
        digits = 0 if abs(value) >= 1_000 else self.digits
        shown = f"{value + 0.0:,.{digits}f}"
        shown = shown.replace("-", "", 1) if not re.search("[1-9]", shown) else shown
        return shown + (f" ± {sure / self.unit:,.{digits}f}" if sure is not None else "")

    def differs(self, old, new):
        if isinstance(old, str) or isinstance(new, str) or old is None or new is None:
            return old != new
        before, after = old["value"], new["value"]
        if before is None or after is None:
            return before is not after
        unsure = (old["sure"] or 0) + (new["sure"] or 0)
        return abs(before - after) > max(self.near * self.unit, self.ratio * abs(before)) + unsure


KIB, MIB = 1 << 10, 1 << 20
USER = Column("user", "bytes a connection")
STEPS = Column("steps", "connections")

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
    "others": ("server", [Column("version", "version"), Column("subscribed", "subscribed"), STEPS,
                          Column("empty", "empty, MiB", MIB, 1, near=2.0), USER, Column("times", "times Fantail's", near=1.0, ratio=0.2)]),
}


def begin(table):
    return f"<!-- table {table}: written by docs/reproduce.sh -->\n\n"


END = "\n<!-- end of table -->\n"


def markdown(table, rows, machine):
    """The lines of one table."""
    if table == "layout":
        return layout_markdown(rows)
    first, columns = TABLES[table]
    text = f"Linux {machine['kernel']}, {machine['cores']} cores.\n\n"
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
        start = page.find(begin(table))
        end = page.find(END, start)
        if start < 0 or end < 0:
            raise SystemExit(f"the page has no place for the table {table}")
        page = page[:start + len(begin(table))] + markdown(table, rows, figures["machine"]) + page[end:]
    return page


def differences(old, new):
    """A line for each figure that is not what it was; nothing for tables that only one of them has."""
    lines = []
    for table, rows in new["tables"].items():
        before = old["tables"].get(table)
        if before is None:
            continue
        if table == "layout":
            lines += [f"layout: {struct['name']} has changed" for struct in rows if struct not in before]
            continue
        for name, cells in rows.items():
            # What other programs do is no figure of ours.
            if name.startswith("all other"):
                continue
            if name not in before:
                lines.append(f"{table}: {name}: new")
                continue
            for column in TABLES[table][1]:
                was, now = before[name].get(column.key), cells.get(column.key)
                if column.key != "steps" and column.differs(was, now):
                    lines.append(f"{table}: {name}: {column.head}: {column.text(was)} then, {column.text(now)} now")
    return lines

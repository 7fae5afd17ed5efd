#!/usr/bin/env python3
"""rows_test - rows.txt is whole: every test that it names exists, and every row of the tables about the existing interfaces is in it.

    rows_test.py [FOLDER]       FOLDER: where those tables are; without it the last line says that the second half was not looked at

A test is named FILE.NAME: a function test_... of a Python file, or a function of a C program that its main or cmocka table runs.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PLACES = [HERE, os.path.join(HERE, "../../compat/store"), os.path.join(HERE, "../../compat/engine")]


def read_rows():
    """section -> [(beginning of the row, [tests])]"""
    sections, section = {}, None
    with open(os.path.join(HERE, "rows.txt"), encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if line.startswith("["):
                section = sections.setdefault(line[1:-1], [])
            elif line and not line.startswith("#"):
                row, _, tests = line.rpartition(" = ")
                section.append((row, [test.strip() for test in tests.split(",")]))
    return sections


def exists(test):
    name, _, function = test.partition(".")
    for place in PLACES:
        for path in (os.path.join(place, f"{name}.py"), os.path.join(place, f"{name}.c")):
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                if path.endswith(".py"):
                    return re.search(rf"^ *def {function}\(", text, re.M) is not None
                return len(re.findall(rf"\b{function}\b", text)) >= 2  # written, and called or in the table
    return False


def rows_of(path):
    """(section, first cell) of every row of every table of a document."""
    section = ""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line, after in zip(lines, [*lines[1:], ""]):
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("|") and not re.match(r"\|[-| :]+\|$", line) and not re.match(r"\|[-| :]+\|$", after):
            yield section, line.strip("|").split("|")[0].strip()


def missing(sections, folder):
    for name in sorted(os.listdir(folder)):
        for section, cell in rows_of(os.path.join(folder, name)):
            if not any(cell == row or cell.startswith(row) for row, _ in sections.get(f"{name}: {section}", [])):
                yield f"{name}: {section}: {cell}"


def main():
    sections = read_rows()
    problems = [f"{section}: {row}: no test {test}" for section, rows in sections.items() for row, tests in rows for test in tests
                if not exists(test)]
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    there = folder and os.path.isdir(folder)
    if there:
        problems += [f"no test for {row}" for row in missing(sections, folder)]
    print("".join(f"{problem}\n" for problem in problems), end="")
    print(f"{sum(map(len, sections.values()))} rows" + ("" if there else ", not compared with the tables, which are not here"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

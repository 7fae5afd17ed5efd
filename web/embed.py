"""embed - put files into a C source as the table web_files[] (net/http.h: struct http_file).

    embed.py OUT.c FILE...      index.html is served at "/", others at "/" + their name
"""
import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}


def array(name, data):
    """The bytes as a C array, 24 a line."""
    rows = [",".join(str(b) for b in data[i:i + 24]) for i in range(0, len(data), 24)]
    return f"static const unsigned char {name}[] = {{\n" + ",\n".join(rows) + "};\n"


def main(out, files):
    parts = ['#include "conductor/http/api.h"\n']
    table = []
    for i, path in enumerate(files):
        base = os.path.basename(path)
        with open(path, "rb") as file:
            data = file.read()
        url = "/" if base == "index.html" else "/" + base
        parts.append(array(f"file_{i}", data))
        table.append(f'    {{"{url}", "{TYPES[os.path.splitext(base)[1]]}", file_{i}, sizeof file_{i}}},\n')
    parts.append("const struct http_file web_files[] = {\n" + "".join(table) + "};\n")
    parts.append("const size_t web_file_count = sizeof web_files / sizeof web_files[0];\n")
    with open(out, "w", encoding="ascii") as file:
        file.write("\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

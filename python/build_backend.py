"""build_backend - makes the wheel `mooncake-transfer-engine` of this tree (PEP 517), for `pip install ./python`.

The tree is one Meson project whose static libraries the extension modules are linked with, so the build of the wheel is the
build of the tree: configure build-python/ at its top, compile the target `python`, zip what it made together with the
.py files. Nothing is fetched. Why no ready-made backend: docs/decisions/080-wheel-backend.md.

Settings: MOONCAKE_BUILD_DIR (default build-python), MOONCAKE_MESON_ARGS (more arguments of `meson setup`) and MOONCAKE_PLATFORM (of
the wheel's tag: tools/wheel).
"""
import base64
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PACKAGE = "mooncake"
PROGRAMS = ["bench/transfer_engine_bench", "client/mooncake_client", "master/mooncake_master", "metadata/mooncake_http_metadata_server",
            "topology/transfer_engine_topology_dump"]


def project():
    try:
        import tomllib
    except ImportError:  # CPython 3.10: pip brings the same parser
        from pip._vendor import tomli as tomllib
    with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
        return tomllib.load(file)["project"]


def tag():
    """The limited API since 3.11, where it has buffers; before that this very version."""
    platform = os.environ.get("MOONCAKE_PLATFORM") or re.sub(r"[-.]", "_", sysconfig.get_platform())
    if sys.version_info >= (3, 11):
        return f"cp311-abi3-{platform}"
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{version}-{version}-{platform}"


def run(*command):
    subprocess.run(command, cwd=ROOT, check=True)


def compiled():
    """Configure and compile; the folder with the extension modules."""
    for program in ("meson", "ninja"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not installed: tools/packages lists what a build needs")
    build = os.environ.get("MOONCAKE_BUILD_DIR", "build-python")
    more = shlex.split(os.environ.get("MOONCAKE_MESON_ARGS", ""))
    again = ["--reconfigure"] if os.path.exists(os.path.join(ROOT, build, "build.ninja")) else []
    run("meson", "setup", build, *again, "-Dbuildtype=release", f"-Dpython={sys.executable}", "-Dpython_required=true", *more)
    run("ninja", "-C", build, "python")
    return os.path.join(ROOT, build, "python", PACKAGE)


def package_files(build):
    """(name in the wheel, path) of the package: modules from the build, the rest from the source."""
    for folder, names, files in os.walk(os.path.join(HERE, PACKAGE)):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(files):
            if name.endswith((".py", ".pyi")) or name == "py.typed":
                path = os.path.join(folder, name)
                yield os.path.relpath(path, HERE), path
    for name in sorted(os.listdir(build)):
        if name.endswith(".so"):
            yield f"{PACKAGE}/{name}", os.path.join(build, name)
    for path in PROGRAMS:  # started by mooncake/_programs.py
        yield f"{PACKAGE}/{os.path.basename(path)}", os.path.join(build, "../../compat", path)


def metadata(about):
    with open(os.path.join(HERE, about["readme"]), encoding="utf-8") as file:
        text = file.read()
    return (f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\nSummary: {about['description']}\n"
            f"License: {about['license']}\nRequires-Python: {about['requires-python']}\n"
            f"Description-Content-Type: text/markdown\n\n{text}")


def info_files(about):
    yield "METADATA", metadata(about)
    yield "WHEEL", f"Wheel-Version: 1.0\nGenerator: mooncake\nRoot-Is-Purelib: false\nTag: {tag()}\n"
    yield "top_level.txt", f"{PACKAGE}\n"
    if about.get("scripts"):
        yield "entry_points.txt", "[console_scripts]\n" + "".join(f"{name} = {at}\n" for name, at in about["scripts"].items())


class Wheel:
    """A zip file that keeps its own RECORD."""

    def __init__(self, path):
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.record = []

    def add(self, name, data, mode=0o644):
        entry = zipfile.ZipInfo(name)  # 1980: the same input gives the same wheel
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self.record.append(f"{name},sha256={digest},{len(data)}")

    def close(self, info):
        self.record.append(f"{info}/RECORD,,")
        self.zip.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join(self.record) + "\n")
        self.zip.close()


def stem_of(about):
    return f"{about['name'].replace('-', '_')}-{about['version']}"


# ---- PEP 517 ----

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """What pip wants to know first; without this it would have the wheel built twice."""
    about = project()
    info = f"{stem_of(about)}.dist-info"
    os.makedirs(os.path.join(metadata_directory, info), exist_ok=True)
    for name, text in info_files(about):
        with open(os.path.join(metadata_directory, info, name), "w", encoding="utf-8") as file:
            file.write(text)
    return info


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    about = project()
    stem = stem_of(about)
    build = compiled()
    name = f"{stem}-{tag()}.whl"
    wheel = Wheel(os.path.join(wheel_directory, name))
    for inside, path in package_files(build):
        with open(path, "rb") as file:
            wheel.add(inside, file.read(), 0o644 if inside.endswith(".py") else 0o755)
    for inside, text in info_files(about):
        wheel.add(f"{stem}.dist-info/{inside}", text.encode())
    wheel.close(f"{stem}.dist-info")
    return name


def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError("the package is built from the whole tree: pip install ./python, or tools/wheel for a wheel")

"""What the study is compared with: brought by npm, pip and apt into target/memory-study, nothing of it global."""

import subprocess
import sys

from measure import WORK, Failed

NPM = {"ws": "8.23.0", "bun": "1.4.5"}
PIP = {"websockets": "17.4", "aiohttp": "3.14.3"}


def run(*line, cwd=None):
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, line))}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def npm(package):
    """The folder node_modules with the package, and its version."""
    folder = WORK / "npm" / package
    if not (folder / "node_modules" / package).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", f"--prefix={folder}",
            f"{package}@{NPM[package]}")
    return folder / "node_modules", NPM[package]


def pip(package):
    """The Python of an environment that has the package, and the package's version."""
    folder = WORK / "pip"
    python = folder / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder)
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{package}=={PIP[package]}")
    return python, PIP[package]


def debian(*packages):
    """A folder with the packages' files unpacked, and the first one's version."""
    folder = WORK / "debian" / packages[0]
    if not (folder / "root").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        run("apt-get", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=folder)
        for package in sorted(folder.glob("*.deb")):
            run("dpkg", "-x", package, folder / "unpacking")
        (folder / "unpacking").rename(folder / "root")
    own = next(folder.glob(f"{packages[0]}_*.deb"))
    return folder / "root", run("dpkg-deb", "-f", own, "Version").strip()


def library(package, pattern):
    """The path of a shared library in a Debian package, and its version."""
    folder, version = debian(package)
    found = sorted(path for path in folder.rglob(pattern) if not path.is_symlink())
    if not found:
        raise Failed(f"{package} has no {pattern}")
    return found[0], version

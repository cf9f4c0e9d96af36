"""What the study is compared with: brought by npm, pip, cargo and apt into target/memory-study, nothing of it global.

npm, PyPI and crates.io serve the versions named here for ever. Debian's archive serves one version of a package, that of
the release the machine runs; the page says which it was.
"""

import os
import shutil
import subprocess
import sys

from measure import BENCHES, WORK, Failed

NPM = {"ws": "8.23.0", "bun": "1.4.5"}
PIP = {"websockets": "17.4", "aiohttp": "3.14.3"}
SCRIPTS = BENCHES / "others"


def run(*line, cwd=None, env=None):
    try:
        done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, env={**os.environ, **(env or {})})
    except OSError as error:
        raise Failed(f"{line[0]}: {error}") from None
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
        # What a run that was broken off has left.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
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


def go():
    """The Go server's program, and what it is made of."""
    root, version = debian("golang-github-gorilla-websocket-dev", "golang-1.19-go", "golang-1.19-src")
    program = WORK / "go-server"
    home = root / "usr/lib/go-1.19"
    env = {"GOROOT": str(home), "GOPATH": str(root / "usr/share/gocode"), "GO111MODULE": "off", "GOFLAGS": "",
           "GOCACHE": str(WORK / "go-cache"), "CGO_ENABLED": "0"}
    run(home / "bin/go", "build", "-o", program, SCRIPTS / "go/main.go", env=env)
    language = (home / "VERSION").read_text().split()[0].removeprefix("go")
    return program, f"{upstream(version)}, Go {language}"


def java():
    """The class path of the Java server, and what it is made of."""
    root, version = debian("libtomcat10-embed-java", "libtomcat10-java")
    jars = [root / f"usr/share/java/tomcat10-embed-{part}.jar" for part in ("core", "el", "websocket")]
    jars.append(root / "usr/share/java/tomcat10-annotations-api.jar")
    classes = WORK / "java-classes"
    path = ":".join(map(str, jars))
    if not shutil.which("javac"):
        raise Failed("no javac: apt-get install default-jdk-headless")
    run("javac", "-d", classes, "-cp", path, SCRIPTS / "java/Broadcast.java")
    runtime = run("java", "--version").split()[1]
    return f"{path}:{classes}", f"{upstream(version)}, OpenJDK {runtime}"


def tungstenite():
    """The program of the other Rust server, and its version."""
    folder, target = SCRIPTS / "tungstenite", WORK / "tungstenite"
    run("cargo", "build", "--locked", "--release", "--quiet", "--target-dir", target, cwd=folder)
    lock = (folder / "Cargo.lock").read_text()
    version = lock.split('name = "tokio-tungstenite"\nversion = "')[1].split('"')[0]
    tokio = lock.split('name = "tokio"\nversion = "')[1].split('"')[0]
    return target / "release/fantail-study-tungstenite", f"{version}, tokio {tokio}"


def certificate():
    """The files of a certificate for 127.0.0.1 and of its key, on the curve that all servers know."""
    folder = WORK / "tls"
    files = folder / "certificate.pem", folder / "key.pem"
    if not all(path.exists() for path in files):
        folder.mkdir(parents=True, exist_ok=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "3650",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1])
    return files


def upstream(version):
    """The version without Debian's epoch and revision."""
    return version.split(":")[-1].split("-")[0].split("+")[0]

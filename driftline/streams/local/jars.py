"""The jars of a Kafka broker and the Java to run them, found or fetched once.

Maven resolves them from its usual repository; nothing else is downloaded, and a filled cache needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from driftline.streams.local.process import LocalServiceError

_HERE = Path(__file__).parent
_POM = _HERE / "kafka.xml"
LOGGING = _HERE / "log4j2.properties"
_JAVA_MIN = 17   # Kafka 4 brokers
_MAVEN_TIMEOUT_SECONDS = 600   # a first resolve takes about 15 s; a slow mirror is not a hang


def kafka_version() -> str:
    """The broker's version as the POM names it."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", _POM.read_text())
    assert found is not None
    return found[1]


def find_java() -> str:
    """The path of a Java that runs a broker: of JAVA_HOME, else of PATH.

    Raises
    ------
    LocalServiceError : there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None or not Path(java).exists():
        need = f"real Kafka needs Java {_JAVA_MIN} or newer and none was found"
        raise LocalServiceError(f"{need}\nhint: apt-get install openjdk-17-jre-headless")
    banner = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < _JAVA_MIN:
        found = version[1] if version else "of unknown version"
        raise LocalServiceError(f'real Kafka needs Java {_JAVA_MIN} or newer, "{java}" is {found}')
    return java


def kafka_jars() -> Path:
    """The folder with the broker's jars; fetched by Maven on the first call.

    Raises
    ------
    LocalServiceError : Maven is missing or could not resolve them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline"
    # The POM's digest is part of the name, so a changed POM never meets the jars of the old one.
    target = cache / f"kafka-{kafka_version()}-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)   # two sessions at once resolve only once
        if not target.is_dir():
            _resolve(cache, target)
    return target


def _resolve(cache: Path, target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise LocalServiceError("real Kafka needs Maven to fetch its jars and none was found\nhint: apt-get install maven")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        shutil.copy(_POM, Path(scratch, "pom.xml"))
        command = [maven, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={scratch}/libs"]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_MAVEN_TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise LocalServiceError(f"Maven had not fetched Kafka's jars after {_MAVEN_TIMEOUT_SECONDS} s") from error
        if done.returncode != 0:
            raise LocalServiceError(f"Maven could not fetch Kafka's jars:\n{(done.stdout + done.stderr)[-1500:]}")
        Path(scratch, "libs").rename(target)   # whole or not at all

"""The phone app: its own checks, and the app in a real headless Chromium on the package that this suite built.

Skipped, with the reason said, only where Node or Chromium is missing. ``npm ci`` runs when package-lock.json changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy
APP = Path(__file__).parents[2] / "mobile_demo"
TEXT = (APP / "e2e" / "text.txt").read_text(encoding="utf-8").strip()
STEPS = (
    "says what is missing when nothing is installed",
    "refuses an unsigned package",
    "refuses a package signed by an unknown key",
    "learns a key and trusts its packages",
    "refuses a package whose manifest was changed",
    "refuses a package with a changed file",
    "says when memory is short, before anything is downloaded",
    "says when space is short, before anything is downloaded",
    "leaves nothing behind of a download that was given up",
    "installs from a folder, and removes what it installed",
    "goes on with a download that broke off, after a restart of the app",
    "verifies every byte on the device again",
    "summarizes with the words of kobako run, and sends nothing anywhere",
    "answers faster once the model is loaded",
    "copies, and keeps a history on the device",
    "stops in the middle, and answers the next question in full",
    "translates sentence by sentence, into the language that was picked",
    "can be used with the keyboard alone",
    "finds that this device computes what was proven, and exports that",
    "speaks Japanese",
    "can be dark, by choice and with the system",
    "keeps its shape with text at double size",
    "has no serious accessibility finding on any screen, light and dark",
    "runs the code of docs/app/web.md with the same words",
    "runs the code of docs/app/react-native.md with the same words",
    "works without network, from a cold start",
)
QUIET = {"RNET_SKIP_DOWNLOAD": "1", "EXPO_OFFLINE": "1", "EXPO_NO_TELEMETRY": "1", "CI": "1"}

Run = Callable[..., str]


@pytest.fixture(scope="session")
def node() -> Run:
    """Run a command in mobile_demo/ with its packages installed; its output, or the test fails with the end of it."""
    if not shutil.which("npm"):
        pytest.skip("there is no Node here: install Node 20 or later to test the phone app")

    def run(*command: str, timeout: float = 600, **environment: str) -> str:
        done = subprocess.run(
            command, cwd=APP, env=os.environ | QUIET | environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{(done.stdout + done.stderr)[-6000:]}"
        return done.stdout

    stamp = APP / "node_modules" / ".kobako-installed"
    wanted = hashlib.sha256((APP / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        run("npm", "ci", "--no-audit", "--no-fund", timeout=900)
        stamp.write_text(wanted)
    return run


@pytest.fixture(scope="session")
def exported(node: Run) -> Path:
    """The web app, built."""
    node("npm", "run", "export:web")
    return APP / "dist"


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    found = found or shutil.which("google-chrome")
    if not found:
        pytest.skip("there is no Chromium here: ./scripts/install installs it as root, or set CHROMIUM")
    return found


def test_types(node: Run) -> None:
    node("npm", "run", "check:types")


def test_lint(node: Run) -> None:
    node("npm", "run", "check:lint")


def test_units(node: Run) -> None:
    node("npm", "test")


def test_the_web_app_is_small(node: Run, exported: Path) -> None:
    """All that a visitor loads, apart from the engine's WebAssembly and the package: under 1 MB gzip."""
    sizes: dict[str, int] = json.loads(node("npm", "run", "--silent", "size", "--", "--json"))
    assert {"index.html", "engine/worker.js", "engine/storage.js"} < set(sizes)
    assert any(path.startswith("_expo/") for path in sizes)
    assert all((exported / path).is_file() for path in sizes)
    assert sum(sizes.values()) < 1_000_000, sizes


Browse = Callable[..., Mapping[str, Any]]


@pytest.fixture(scope="session")
def browse(node: Run, chromium: str, exported: Path, kobako: Callable[..., Any], tmp_path_factory: Any) -> Browse:
    """``browse(package, *asked)``: what happened in the browser, step by step, beside what ``kobako run`` answered."""

    def run(package: Path, *asked: str, **environment: str) -> Mapping[str, Any]:
        out = tmp_path_factory.mktemp("app")
        said = kobako("run", package, "--target", "litert", "--json", *asked)
        assert said.code == 0, said.err
        (out / "expected.json").write_text(said.out)
        told = {
            "KOBAKO_PACKAGE": str(package), "KOBAKO_EXPECTED": str(out / "expected.json"), "KOBAKO_E2E_OUT": str(out),
            "CHROMIUM": chromium,
        }  # fmt: skip
        done = subprocess.run(
            ["npm", "run", "--silent", "e2e"], cwd=APP, env=os.environ | QUIET | told | environment,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=800, check=False,
        )  # fmt: skip
        results = out / "results.json"
        assert results.is_file(), done.stderr[-4000:]
        found: Mapping[str, Any] = json.loads(results.read_text())
        print(json.dumps(found["figures"], indent=2))
        return found

    return run


@pytest.fixture(scope="session")
def seen(browse: Browse, built: Path) -> Mapping[str, Any]:
    return browse(built, "--task", "summarize", TEXT)


@pytest.mark.real
@pytest.mark.parametrize("step", STEPS)
def test_in_the_browser(seen: Mapping[str, Any], step: str) -> None:
    outcome = next((one for one in seen["steps"] if one["step"] == step), None)
    assert outcome is not None, f"the browser never came to it; last: {seen['steps'][-1]}"
    assert outcome["passed"], outcome["detail"]


@pytest.mark.real
def test_every_step_is_listed_here(seen: Mapping[str, Any]) -> None:
    assert {one["step"] for one in seen["steps"]} == set(STEPS)


@pytest.mark.real
@pytest.mark.long
def test_gemma_translates_in_the_browser(browse: Browse, gemma: Path) -> None:
    question = "How much does this book cost?"
    found = browse(gemma, "--task", "translate", "--to", "fr", question, KOBAKO_E2E_TRANSLATOR="1")
    assert [one for one in found["steps"] if not one["passed"]] == []
    assert len(found["steps"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("platform", ["android", "ios"])
def test_the_native_bundles_are_built(node: Run, platform: str) -> None:
    node("npx", "expo", "export", "--platform", platform, "--output-dir", f"dist-{platform}")
    assert list((APP / f"dist-{platform}").rglob("*.hbc")), "no Hermes bytecode came out"


@pytest.mark.long
def test_the_native_projects_are_generated(node: Run, tmp_path: Path) -> None:
    try:
        node("npx", "expo", "prebuild", "--no-install", "--clean")
        assert "dev.kobako.app" in (APP / "android" / "app" / "build.gradle").read_text()
        asked = (APP / "android" / "app" / "src" / "main" / "AndroidManifest.xml").read_text()
        granted = [
            line for line in asked.splitlines() if "<uses-permission" in line and 'tools:node="remove"' not in line
        ]
        assert [line.split('"')[1] for line in granted] == ["android.permission.INTERNET"]
        assert "18.0" in (APP / "ios" / "Podfile.properties.json").read_text()
    finally:
        for name in ("android", "ios"):
            shutil.rmtree(APP / name, ignore_errors=True)

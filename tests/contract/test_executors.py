"""Jobs of a matrix: on this machine, and on a Ray cluster of two nodes of which one is killed during a build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyBuild
from tests.faults.ground import essence, sound

pytestmark = pytest.mark.heavy


def write_matrix(path: Path, model: Path | str, *extra: str) -> Path:
    entries = [f'[[model]]\nmodel = "{name}"\n' for name in (model, *extra)]
    path.write_text('[defaults]\nrecipes = ["float16"]\ntargets = ["litert"]\ncontext = 512\n' + "".join(entries))
    return path


def command(matrix: Path, out: str, *options: str) -> list[str]:
    kobako = [sys.executable, "-m", "kobako.pipeline.cli.main", "build", "--matrix", str(matrix)]
    return [*kobako, "--no-measure", "--json", "--out", out, *options]


def run(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"KOBAKO_CACHE": str(cache)}
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)


def test_here_a_job_that_fails_does_not_stop_the_others(tiny_build: TinyBuild, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "nobody-knows"}')
    matrix = write_matrix(tmp_path / "m.toml", broken, str(tiny_build.model))
    shown = run(command(matrix, str(tmp_path / "out")), tiny_build.cache)
    rows = json.loads(shown.stdout)
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert shown.returncode not in (0, 70), shown.stderr
    assert essence(tmp_path / "out" / "tiny-float16") == essence(tiny_build.package)


def test_a_cold_machine_takes_what_others_made(tiny_build: TinyBuild, tmp_path: Path) -> None:
    """A shared cache and an output, both as URLs; the second machine exports nothing."""
    shared = ["--shared-cache", f"file://{tmp_path / 'shared'}"]
    matrix = write_matrix(tmp_path / "m.toml", tiny_build.model)
    first = run(command(matrix, f"file://{tmp_path / 'out1'}", *shared), tmp_path / "one")
    assert first.returncode == 0, first.stderr
    started = time.monotonic()
    second = run(command(matrix, f"file://{tmp_path / 'out2'}", *shared), tmp_path / "two")
    assert second.returncode == 0, second.stderr
    assert "litert export: from the cache" not in first.stderr
    assert time.monotonic() - started < 60
    for name in ("out1", "out2"):
        assert sound(tmp_path / name / "tiny-float16")
        assert essence(tmp_path / name / "tiny-float16") == essence(tiny_build.package)
    logs = [path.name for path in (tmp_path / "two" / "logs").iterdir()]
    assert not any(name.startswith("export") for name in logs), "the second machine exported again"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores for jobs, and one node; the test adds another."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
    try:
        made = Cluster(initialize_head=True, head_node_args=head)
    except Exception as error:  # its own, of no class: it gives a node thirty seconds to start
        pytest.skip(f"Ray does not start here: {error}")
    yield made
    made.shutdown()


def test_a_node_is_killed_during_a_build(cluster: Any, tiny_build: TinyBuild, tmp_path: Path) -> None:
    node = {"num_cpus": 1, "memory": 4 * 10**9, "object_store_memory": 10**8}
    doomed = cluster.add_node(**node)
    matrix = write_matrix(tmp_path / "m.toml", tiny_build.model)
    options = ["--executor", "ray", "--ray-address", cluster.address, "--cache-dir", str(tmp_path / "cache")]
    process = subprocess.Popen(
        command(matrix, str(tmp_path / "out"), *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "cache" / "logs", "quantize", process)
    cluster.remove_node(doomed, allow_graceful=False)
    assert process.poll() is None, "the build was over before the node died"
    cluster.add_node(**node)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (row,) = json.loads(out)
    assert row["proven"] == ["litert"]
    assert sound(tmp_path / "out" / "tiny-float16")
    assert essence(tmp_path / "out" / "tiny-float16") == essence(tiny_build.package)


def wait_for(logs: Path, stage: str, process: subprocess.Popen[str]) -> None:
    """Until a build has begun a stage."""
    for _ in range(1200):
        if logs.is_dir() and any(path.name.startswith(stage) for path in logs.iterdir()):
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.1)
    raise AssertionError(f"{stage} never began")


@pytest.mark.parametrize(
    ("nodes", "memory_bytes", "expected"),
    [
        ([{"CPU": 2, "memory": 8e9}], 0, {"num_cpus": 2}),
        ([{"CPU": 64, "memory": 8e9}], 6 * 10**9, {"num_cpus": 3, "memory": 6 * 10**9}),
        ([{"CPU": 64, "memory": 4e9}, {"CPU": 1, "memory": 8e9}], 6 * 10**9, {"num_cpus": 1, "memory": 6 * 10**9}),
        ([{"CPU": 64, "memory": 4e9}], 6 * 10**9, None),
        ([{"memory": 8e9}], 0, None),
    ],
)
def test_nothing_is_asked_for_that_no_machine_has(
    nodes: list[dict[str, float]], memory_bytes: int, expected: dict[str, float] | None
) -> None:
    from kobako.pipeline.errors import NotEnoughMemory
    from kobako.pipeline.executors import Order
    from kobako.pipeline.executors.ray_cluster import resources
    from kobako.pipeline.matrix import Job

    job = Job(
        name="a", model="m", recipe="int8", targets="coreml executorch litert", context=64, tasks="", publish="",
        memory_bytes=memory_bytes,
    )  # fmt: skip
    if expected is None:
        with pytest.raises(NotEnoughMemory):
            resources(Order(job=job, out="o"), nodes)
    else:
        assert resources(Order(job=job, out="o"), nodes) == expected


def test_no_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    matrix = write_matrix(tmp_path / "m.toml", "smollm2-135m-instruct")
    shown = run(command(matrix, str(tmp_path / "out"), "--executor", "ray", "--ray-address", "127.0.0.1:9"), tmp_path)
    assert shown.returncode == 5, shown.stderr

"""The Hub path against a real HTTP server on loopback."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hub_server import GOOD_TOKEN, HubServer, Repo, sha256
from kobako.pipeline.contracts import Source
from kobako.pipeline.errors import AccessDenied, IntegrityError, NetworkError, NotFound, UnsupportedModel
from kobako.pipeline.fetch import fetch, hub_errors, parse
from safetensors.numpy import save

NAME = "org/Tiny-Model"
WEIGHTS = save({"a": np.arange(300_000, dtype=np.float32)})
FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# a card",
    "LICENSE": b"a licence",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "original/consolidated.safetensors": b"another form",
    "onnx/model.onnx": b"another form",
}
NEEDED = {"config.json", "tokenizer.json", "chat_template.jinja", "README.md", "LICENSE", "model.safetensors"}


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(FILES)
    return hub.repos[NAME]


def get(tmp_path: Path, text: str = NAME, *, offline: bool = False) -> Source:
    return fetch(parse(text), tmp_path / "downloads", lambda fraction, words: None, offline=offline)


def assert_whole(source: Source, weights: bytes = WEIGHTS) -> None:
    assert (source.directory / "model.safetensors").read_bytes() == weights
    for file in source.files:
        content = (source.directory / file.path).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(content), sha256(content))


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "hub-cache").rglob("*.incomplete"))


def test_a_branch_is_resolved_to_a_commit_and_only_needed_files_come(
    hub: HubServer, repo: Repo, tmp_path: Path
) -> None:
    fractions: list[float] = []
    source = fetch(parse(NAME), tmp_path / "downloads", lambda fraction, words: fractions.append(fraction))
    assert source.revision == repo.branches["main"]
    assert source.origin == f"hf://{NAME}"
    assert (source.name, source.format, source.licence) == ("tiny-model", "safetensors", "Apache-2.0")
    assert {file.path for file in source.files} == NEEDED
    assert_whole(source)
    assert not any("bin" in path or "onnx" in path or "original" in path for _, path, _ in hub.log)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len([fraction for fraction in fractions if 0.1 < fraction < 0.99]) >= 1


def test_a_second_call_transfers_nothing(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    first = get(tmp_path)
    hub.log.clear()
    assert get(tmp_path) == first
    assert [path for _, path, _ in hub.log] == [f"/api/models/{NAME}"]


def test_a_pinned_commit_asks_nothing_the_second_time(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    old = repo.branches["main"]
    repo.commit({**FILES, "model.safetensors": save({"a": np.zeros(4, np.float32)})})
    source = get(tmp_path, f"{NAME}@{old}")
    assert source.revision == old
    assert_whole(source)
    hub.log.clear()
    assert get(tmp_path, f"{NAME}@{old}") == source
    assert hub.log == []


def test_a_moved_branch_brings_the_new_files(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    get(tmp_path)
    newer = save({"a": np.ones(1000, np.float32)})
    commit = repo.commit({**FILES, "model.safetensors": newer})
    source = get(tmp_path)
    assert source.revision == commit
    assert_whole(source, newer)


def test_another_branch(repo: Repo, tmp_path: Path) -> None:
    other = save({"a": np.ones(3, np.float32)})
    commit = repo.commit({**FILES, "model.safetensors": other}, branch="dev/x")
    source = get(tmp_path, f"{NAME}@dev/x")
    assert source.revision == commit
    assert_whole(source, other)


def test_a_gated_model_says_where_to_ask(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.gated = True
    with pytest.raises(AccessDenied, match="gated") as caught:
        get(tmp_path)
    assert f"{hub.endpoint}/{NAME}" in caught.value.next_step
    assert "hf auth login" in caught.value.next_step


def test_a_gated_model_with_a_token_of_someone_else(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(AccessDenied, match="gated"):
        get(tmp_path)


def test_a_token_opens_a_gated_model_and_does_not_travel_to_another_host(
    hub: HubServer, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.gated = True
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert_whole(get(tmp_path))
    assert any(GOOD_TOKEN in headers.get("authorization", "") for _, _, headers in hub.log)
    assert hub.transfers()
    assert not any("authorization" in headers for headers in hub.transfers())


def test_an_unknown_repository_names_near_ones(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no public model org/Tiny-Modell") as caught:
        get(tmp_path, "org/Tiny-Modell")
    assert NAME in caught.value.next_step


def test_an_unknown_revision(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no revision 'v9'"):
        get(tmp_path, f"{NAME}@v9")


def test_a_cut_connection_is_resumed_and_the_digest_is_right(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.cuts = [400_000, 400_000]
    assert_whole(get(tmp_path))
    assert [headers.get("range") for headers in hub.transfers()] == [None, "bytes=400000-", "bytes=800000-"]
    assert leftovers(tmp_path) == []


def test_attempts_are_counted_anew_while_bytes_arrive(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.cuts = [50_000] * 2 * hub_errors.ATTEMPTS
    assert_whole(get(tmp_path))
    assert len(hub.transfers()) == 2 * hub_errors.ATTEMPTS + 1


def test_a_later_run_continues_where_an_earlier_one_gave_up(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.cuts = [400_000, *[0] * hub_errors.ATTEMPTS]
    with pytest.raises(NetworkError, match="broke off"):
        get(tmp_path)
    assert [path.stat().st_size for path in leftovers(tmp_path)] == [400_000]
    assert not list((tmp_path / "hub-cache").rglob("model.safetensors"))
    hub.log.clear()
    assert_whole(get(tmp_path))
    assert [headers.get("range") for headers in hub.transfers()] == ["bytes=400000-"]


def test_a_server_that_ignores_range_does_not_corrupt(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.cuts, hub.faults.ignore_range = [400_000], True
    assert_whole(get(tmp_path))
    assert [headers.get("range") for headers in hub.transfers()] == [None, "bytes=400000-"]


def test_a_wrong_digest_is_refused_and_nothing_stays(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.corrupt = True
    with pytest.raises(IntegrityError, match=r"model\.safetensors arrived with digest"):
        get(tmp_path)
    assert leftovers(tmp_path) == []
    assert not list((tmp_path / "hub-cache").rglob("model.safetensors"))
    hub.faults.corrupt = False
    assert_whole(get(tmp_path))


@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer.json"])
def test_damage_in_the_cache_is_noticed_and_repaired(hub: HubServer, repo: Repo, tmp_path: Path, path: str) -> None:
    source = get(tmp_path)
    blob = (source.directory / path).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 0xFF
    blob.write_bytes(bytes(content))
    assert_whole(get(tmp_path))
    assert (source.directory / path).read_bytes() == FILES[path]


def test_two_at_once_transfer_once(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = (job.result() for job in [pool.submit(get, tmp_path) for _ in range(2)])
    assert first == second
    assert_whole(first)
    assert len(hub.transfers()) == 1


def test_offline_with_a_warm_cache(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    source = get(tmp_path)
    hub.log.clear()
    assert get(tmp_path, offline=True) == source
    assert hub.log == []


def test_no_network_with_a_warm_cache(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    source = get(tmp_path)
    hub.close()
    assert get(tmp_path) == source


def test_offline_with_a_cache_that_another_tool_filled(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(NAME, endpoint=hub.endpoint)
    source = get(tmp_path, offline=True)
    assert source.revision == repo.branches["main"]
    assert_whole(source)


def test_offline_with_a_cold_cache(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="never fetched, and no network may be used"):
        get(tmp_path, offline=True)
    assert hub.log == []


def test_offline_with_half_a_cache(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    source = get(tmp_path)
    (source.directory / "model.safetensors").unlink()
    with pytest.raises(NetworkError, match="not complete"):
        get(tmp_path, offline=True)


def test_no_network_with_a_cold_cache(hub: HubServer, tmp_path: Path) -> None:
    hub.close()
    with pytest.raises(NetworkError, match="cannot be reached"):
        get(tmp_path)


def test_a_server_in_trouble_is_asked_again(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults.api_errors = 2
    assert_whole(get(tmp_path))


def test_only_pickles_are_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["org/old"] = Repo()
    hub.repos["org/old"].commit({"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(UnsupportedModel, match="only pickled weights") as caught:
        get(tmp_path, "org/old")
    assert "safetensors" in caught.value.next_step
    assert not any("resolve" in path for _, path, _ in hub.log)


def test_shards_and_their_index_come(hub: HubServer, tmp_path: Path) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": save({f"t{n}": np.ones(n, np.float32)}) for n in (1, 2)}
    index = {"weight_map": {"t1": "model-00001-of-00002.safetensors", "t2": "model-00002-of-00002.safetensors"}}
    files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(), **shards}
    hub.repos["org/big"] = Repo()
    hub.repos["org/big"].commit({**files, "consolidated.safetensors": b"another form"})
    assert {file.path for file in get(tmp_path, "org/big").files} == set(files)


def test_a_repository_of_one_gguf(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["org/one-GGUF"] = Repo()
    hub.repos["org/one-GGUF"].commit({"README.md": b"", "one.gguf": b"GGUF..."})
    source = get(tmp_path, "org/one-GGUF")
    assert (source.format, source.name) == ("gguf", "one-gguf")


def test_a_repository_of_many_ggufs_is_ambiguous(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["org/many-GGUF"] = Repo()
    hub.repos["org/many-GGUF"].commit({"a.gguf": b"GGUF", "b.gguf": b"GGUF"})
    with pytest.raises(UnsupportedModel, match="2 GGUF files"):
        get(tmp_path, "org/many-GGUF")

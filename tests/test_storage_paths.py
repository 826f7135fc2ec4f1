"""The contract of a store, on a local folder and on a real S3 server alike."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from motionsynth.errors import InputError
from storage import ConflictError, MissingError, ObjectInfo, Storage
from tests.storage_fixtures import ACCESS_KEY, SECRET_KEY

ROOT = Path(__file__).resolve().parents[1]


def test_write_read_replace_delete(storage_uri: str) -> None:
    s = Storage(storage_uri)
    assert s.list() == [] and not s.exists("a/b.bin")
    s.write("a/b.bin", b"one")
    s.write("a/b.bin", b"second")
    assert s.read("a/b.bin") == b"second" and s.exists("a/b.bin")
    s.write("empty", b"")
    assert s.read("empty") == b""
    s.delete("a/b.bin")
    s.delete("a/b.bin")
    assert not s.exists("a/b.bin")
    with pytest.raises(MissingError, match=r"a/b\.bin' does not exist"):
        s.read("a/b.bin")
    with pytest.raises(MissingError):
        s.digest("a/b.bin")


def test_unusual_names_and_contents(storage_uri: str) -> None:
    s = Storage(storage_uri)
    names = ["with space/ü-名.bin", "a+b&c=d%2F?#.txt", "~tilde/'quote'", "dots/..name/...", "x" * 255]
    for i, name in enumerate(names):
        s.write(name, bytes([i]) * (i * 1000))
    assert [o.key for o in s.list()] == sorted(names)
    for i, name in enumerate(names):
        assert s.read(name) == bytes([i]) * (i * 1000)


def test_list_is_by_folder_sorted_and_sized(storage_uri: str) -> None:
    s = Storage(storage_uri)
    for key in ("run/2", "run/10", "run/sub/1", "running/1", "run.txt"):
        s.write(key, key.encode())
    want = [ObjectInfo(key=k, size=len(k)) for k in ("run/10", "run/2", "run/sub/1")]
    assert s.list("run") == want == s.list("run/")
    assert [o.key for o in s.sub("run").list()] == ["10", "2", "sub/1"]
    assert s.sub("run").sub("sub").read("1") == b"run/sub/1"
    assert s.list("nothing") == []


def test_list_reads_every_page(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Storage(s3_uri)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: s.write(f"p/{i:04d}", b"x"), range(25)))
    client = s.client()
    pages = []

    def small_pages(params: dict, **_: object) -> None:
        pages.append(1)
        params["MaxKeys"] = 10

    client.meta.events.register("provide-client-params.s3.ListObjectsV2", small_pages)
    assert [o.key for o in s.list("p")] == [f"p/{i:04d}" for i in range(25)]
    assert len(pages) == 3


def test_put_once(storage_uri: str) -> None:
    s = Storage(storage_uri)
    assert s.put_once("m/manifest.json", b"first") == "new"
    assert s.put_once("m/manifest.json", b"first") == "same"
    with pytest.raises(ConflictError, match="already exists with other content"):
        s.put_once("m/manifest.json", b"other")
    with pytest.raises(ConflictError):
        s.put_once("m/manifest.json", b"firsT")
    assert s.read("m/manifest.json") == b"first"


def test_put_once_against_an_object_without_recorded_digest(s3_uri: str) -> None:
    s = Storage(s3_uri)
    bucket, prefix = s3_uri.removeprefix("s3://").split("/")
    s.client().put_object(Bucket=bucket, Key=f"{prefix}/other-tool", Body=b"text")
    assert s.put_once("other-tool", b"text") == "same"
    with pytest.raises(ConflictError):
        s.put_once("other-tool", b"test")


@pytest.mark.parametrize("equal", [False, True])
def test_of_eight_racing_writers_one_wins(storage_uri: str, equal: bool) -> None:
    barrier = threading.Barrier(8)
    payloads = [bytes([65 if equal else 65 + i]) * 200_000 for i in range(8)]

    def write(i: int) -> str:
        s = Storage(storage_uri)
        s.exists("warm-up")
        barrier.wait()
        try:
            return s.put_once("race/target", payloads[i])
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, range(8)))
    assert sorted(results) == ["new"] + ["same"] * 7 if equal else ["conflict"] * 7 + ["new"]
    assert Storage(storage_uri).read("race/target") == payloads[results.index("new")]
    assert [o.key for o in Storage(storage_uri).list()] == ["race/target"]


def test_put_once_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    test_of_eight_racing_writers_one_wins(str(tmp_path), False)
    test_put_once(str(tmp_path / "other"))


def test_a_reader_never_sees_half_a_replacement(storage_uri: str) -> None:
    s = Storage(storage_uri)
    versions = [bytes([i]) * 300_000 for i in (1, 2)]
    s.write("live", versions[0])
    done = threading.Event()

    def rewrite() -> None:
        for i in range(20):
            s.write("live", versions[i % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(rewrite)
        while not done.is_set() and not writer.done():
            assert s.read("live") in versions
        writer.result()


# Stops the process at the worst moment: bytes have gone out, the last ones have not.
KILLED_WRITER = """
import http.client, os, signal, sys
from storage import Storage

def stop(*_):
    os.kill(os.getpid(), signal.SIGKILL)

send = http.client.HTTPConnection.send
def send_half(self, data):
    if isinstance(data, bytes) and len(data) < 100_000:
        return send(self, data)
    body = data if isinstance(data, bytes) else data.read()
    send(self, body[: len(body) // 2])
    stop()

http.client.HTTPConnection.send = send_half
os.fsync = stop
getattr(Storage(sys.argv[1]), sys.argv[2])("dir/object", b"x" * 1_000_000)
"""


@pytest.mark.parametrize("verb", ["write", "put_once"])
def test_a_writer_killed_in_mid_write_leaves_nothing_visible(storage_uri: str, verb: str) -> None:
    s = Storage(storage_uri)
    run = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, storage_uri, verb], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == -9, run.stderr
    assert s.list() == [] and not s.exists("dir/object")
    assert s.put_once("dir/object", b"whole") == "new"
    assert [o.key for o in s.list()] == ["dir/object"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        ".tmp-1/x",
        "a/.tmp-x",
    ]
    + ["y" * 256, "z/" * 600 + "z", "\ud800"],
)
def test_keys_that_leave_the_prefix_or_cannot_be_stored_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "outside").write_text("secret")
    s = Storage(tmp_path / "store")
    for action in (
        s.read,
        s.exists,
        s.delete,
        s.digest,
        lambda k: s.write(k, b""),
        lambda k: s.put_once(k, b""),
    ):
        with pytest.raises(InputError, match="Object key"):
            action(key)
    with pytest.raises(InputError, match="Object key"):
        s.sub("ok").read(key)
    assert not (tmp_path / "store").exists()


def test_digest(storage_uri: str) -> None:
    s = Storage(storage_uri)
    s.write("d", b"abc")
    assert s.digest("d") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_pickle_keeps_the_place_and_no_secret(storage_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Storage(storage_uri).sub("sub/folder")
    s.write("k", b"v")
    data = pickle.dumps(s)
    for text in (data, repr(s).encode(), s.uri.encode()):
        assert SECRET_KEY.encode() not in text and ACCESS_KEY.encode() not in text
    # The endpoint travels, so that a worker needs only the credentials.
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    again = pickle.loads(data)
    assert again == s and hash(again) == hash(s) and again.read("k") == b"v"


def test_worker_env_and_credentials_are_enough_for_another_process(storage_uri: str) -> None:
    Storage(storage_uri).write("k", b"value")
    shared = Storage(storage_uri).worker_env()
    assert not {ACCESS_KEY, SECRET_KEY} & set(shared.values()) and not any("KEY" in k for k in shared)
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") or "KEY" in k} | shared
    code = "import sys; from storage import Storage; print(Storage(sys.argv[1]).read('k').decode())"
    run = subprocess.run(
        [sys.executable, "-c", code, storage_uri], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert run.stdout.strip() == "value", run.stderr


def test_pyarrow_filesystem(storage_uri: str) -> None:
    s = Storage(storage_uri).sub("table")
    s.write("part", b"bytes")
    fs, root = s.filesystem()
    assert SECRET_KEY.encode() not in pickle.dumps(fs)
    fs = pickle.loads(pickle.dumps(fs))
    with fs.open_input_file(f"{root}/part") as f:
        assert f.read() == b"bytes"
    with fs.open_output_stream(f"{root}/back") as f:
        f.write(b"written by arrow")
    assert s.read("back") == b"written by arrow"


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = Storage("runs/a"), Storage(f"file://{tmp_path}/runs/a")
    assert relative == absolute and relative.uri == str(tmp_path / "runs/a")
    # Workers run in another directory; the address must not move with it.
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(relative)).uri == str(tmp_path / "runs/a")
    assert (
        Storage("s3://bucket/a/b/").uri == "s3://bucket/a/b" and Storage("s3://bucket").uri == "s3://bucket"
    )
    with pytest.raises(InputError, match="no S3 client"):
        relative.client()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "is empty"),
        ("gs://bucket/x", "Unknown storage scheme 'gs'"),
        ("file://relative/x", "not absolute"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/../x", "Object key"),
        ("s3://bucket/x?endpoint_override=http://h", "AWS_ENDPOINT_URL"),
    ],
)
def test_bad_addresses(uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Storage(uri)


@pytest.mark.parametrize("where", ["uri", "endpoint"])
def test_credentials_in_an_address_are_refused_and_not_repeated(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "s3://AKIA:hunter2@bucket/x" if where == "uri" else "s3://bucket/x"
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", "http://AKIA:hunter2@host" if where == "endpoint" else "http://host"
    )
    with pytest.raises(InputError, match="credentials in it") as caught:
        Storage(uri)
    assert "hunter2" not in str(caught.value)


def every_verb(s: Storage) -> list:
    return [
        lambda: s.read("k"),
        lambda: s.write("k", b"v"),
        lambda: s.put_once("k", b"v"),
        lambda: s.exists("k"),
        lambda: s.list(),
        lambda: s.delete("k"),
        lambda: s.digest("k"),
        lambda: s.check(),
        lambda: s.filesystem(),
    ]


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_one_sentence_without_the_secret(
    s3_uri: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, "wrong-value-77")
    for action in every_verb(Storage(s3_uri)):
        with pytest.raises(InputError, match="refused to .* check AWS_ACCESS_KEY_ID") as caught:
            action()
        assert "wrong-value-77" not in str(caught.value) and SECRET_KEY not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_missing_credentials(s3_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no credentials .* set AWS_ACCESS_KEY_ID"):
        Storage(s3_uri).check()


def test_missing_bucket(s3_uri: str) -> None:
    # SeaweedFS would make the bucket on a write: a typing error must not succeed there either.
    for action in every_verb(Storage("s3://no-such-bucket/x")):
        with pytest.raises(InputError, match="Bucket 'no-such-bucket' does not exist .* create it"):
            action()


def test_unreachable_endpoint_is_one_sentence_and_soon(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        # Bound but not listening: nobody else can take the port, and nobody answers on it.
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(InputError, match="No .*answer from http://127.0.0.1.* AWS_ENDPOINT_URL"):
            Storage(s3_uri).write("k", b"v")
    assert time.monotonic() - start < 20


def test_a_download_that_breaks_off_is_repeated(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.response import StreamingBody

    s = Storage(s3_uri)
    s.write("k", b"v" * 1000)
    whole, breaks = StreamingBody.read, []

    def read(self: StreamingBody, amt: int | None = None) -> bytes:
        if not breaks:
            breaks.append(1)
            self._content_length = "2000"
        return whole(self, amt)

    monkeypatch.setattr(StreamingBody, "read", read)
    assert s.read("k") == b"v" * 1000 and breaks


def test_large_objects_go_up_in_parts(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.s3.MULTIPART_BYTES", 1024)
    s, data = Storage(s3_uri), os.urandom(9 << 20)
    s.write("big", data)
    assert s.read("big") == data and s.put_once("big", data) == "same"


def test_folder_and_file_of_the_same_name(tmp_path: Path) -> None:
    s = Storage(tmp_path)
    s.write("a", b"")
    with pytest.raises(InputError, match="same name"):
        s.write("a/b", b"")
    s.write("d/x", b"")
    for action in (lambda: s.write("d", b""), lambda: s.read("d"), lambda: s.put_once("d", b"")):
        with pytest.raises(InputError, match="same name"):
            action()
    assert [o.key for o in s.list()] == ["a", "d/x"]


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    Storage(tmp_path / "a" / "b").check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="same name"):
        Storage(tmp_path / "file" / "below").check()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="permission denied"):
        Storage(tmp_path).check()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        Storage(tmp_path).write("k", b"v")
    assert list(tmp_path.iterdir()) == []

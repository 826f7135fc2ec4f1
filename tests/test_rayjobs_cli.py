"""Exit codes and the last line, as a script would see them: every case runs a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.skeleton import get_skeleton
from motionsynth.splits import Split
from rayjobs.cli import Common, check_name, parse, parse_fields, plain
from storage import Storage
from storage.dataset import write_dataset
from storage.header import Header
from tests.tiny_motion import make_tiny_set

ROOT = Path(__file__).resolve().parents[1]

# A verb as small as a verb can be, in its own file, so that it runs as every verb does.
VERB = '''
import time
import weakref
from dataclasses import dataclass
from rayjobs import cli
from motionsynth.errors import InputError

@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Do one of several things.

    Attributes:
        do: What to do.
    """

    do: str = "work"

def rest(_=None):
    print("asleep", flush=True)
    # In steps: a signal between Python's look for one and the call that blocks is heard after that call.
    for _ in range(600):
        time.sleep(0.1)

def verb(options):
    options.open_storage()
    if options.do == "work":
        print("a table")
        return {"ratio": float("nan"), "run": options.run}
    if options.do == "bad":
        raise InputError("Unknown thing 'x'. Known: y.")
    if options.do == "part":
        raise cli.JobError("1 of 2 shards failed: a; run the same command again.")
    if options.do in ("sleep", "sleep with ray"):
        if options.do == "sleep with ray":
            options.connect(options.open_storage())
        rest()
    if options.do == "sleep while an object dies":
        class Mortal:
            pass
        dying = Mortal()
        watch = weakref.ref(dying, rest)
        del dying
        rest()
    if options.do == "ray":
        import ray
        connection = options.connect(options.open_storage())

        @ray.remote
        def chatter():
            print("a worker speaks")
            return 3

        print("a table")
        return {"answer": ray.get(chatter.remote()), "started": connection.started}
    if options.do == "lose an actor":
        import os, pathlib, ray
        died = pathlib.Path(__file__).with_name("died")
        options.connect(options.open_storage())

        @ray.remote(max_restarts=3, max_task_retries=-1)
        class Worker:
            def work(self):
                times = len(died.read_text()) if died.exists() else 0
                if times < 3:  # what is said again, Ray holds back until it shuts down
                    died.write_text("x" * (times + 1))
                    os._exit(1)

        ray.get(Worker.remote().work.remote())
        time.sleep(2)  # until Ray has told what happened
        print("a table")
        return {}
    raise KeyError(options.do)

if __name__ == "__main__":
    cli.main(Options, verb)
'''


@pytest.fixture(scope="module")
def verb(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("verb") / "verb.py"
    path.write_text(VERB)
    return [sys.executable, str(path), "--storage", str(path.parent / "out")]


def run(command: list[str]) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def last(done: subprocess.CompletedProcess) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def test_result_is_the_last_line(verb: list[str]) -> None:
    done = run([*verb, "--run", "r1", "--json"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "a table"
    assert last(done) == {"ratio": None, "run": "r1"}


def test_without_json_only_the_table(verb: list[str]) -> None:
    assert run(verb).stdout == "a table\n"


def test_bad_input_is_one_sentence_and_exit_code_2(verb: list[str]) -> None:
    done = run([*verb, "--do", "bad", "--json"])
    assert done.returncode == 2
    assert done.stderr == "Unknown thing 'x'. Known: y.\n"
    assert last(done) == {"error": "Unknown thing 'x'. Known: y.", "exit_code": 2}


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (["--rum", "x"], "--rum"),
        (["--cpus", "many"], "--cpus"),
        (["--run", "../other"], "../other"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_code_2(
    verb: list[str], extra: list[str], names: str
) -> None:
    done = run([*verb, *extra, "--json"])
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and names in done.stderr and "Traceback" not in done.stderr
    assert names in last(done)["error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Several(Common):
    """Options of which two take several values.

    Attributes:
        vary, raw_files: Any number.
        times: One.
    """

    vary: tuple[str, ...] = ()
    raw_files: tuple[Path, ...] = ()
    times: int = 1


@pytest.mark.parametrize(
    "words",
    [
        "--vary a b=1:2 c --raw-files x y --times 3",
        "--vary a --vary b=1:2 --raw_files x --vary=c --times 3 --raw-files y",
    ],
)
def test_an_option_of_several_values_may_be_given_several_times(words: str) -> None:
    given = parse(Several, ["--storage", "s", *words.split()])
    assert (
        given.vary == ("a", "b=1:2", "c") and given.raw_files == (Path("x"), Path("y")) and given.times == 3
    )


def test_missing_storage_is_named() -> None:
    done = run([sys.executable, "-m", "rayjobs.status"])
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "not understood (Missing from python -m rayjobs.status: --storage" in done.stderr


def skeleton_file(folder: Path, *roots: str) -> Path:
    """Kinect-20 with these joints for roots; without any, the pelvis hangs on the spine, which hangs on it."""
    d = get_skeleton("kinect20").to_dict()
    parents = (
        dict(zip(d["joints"], d["parents"], strict=True)) | {"pelvis": "spine"} | dict.fromkeys(roots, "")
    )
    path = folder / f"roots{len(roots)}.json"
    path.write_text(json.dumps(d | {"parents": [parents[j] for j in d["joints"]]}))
    return path


def test_what_users_get_wrong_about_their_data_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    motions = make_tiny_set()
    folds = tuple(
        Split(name=f"fold{i}", by="subject", train=("01", "02"), test=("03",)).to_dict() for i in (1, 2)
    )
    write_dataset(Storage(tmp_path), "data/tiny", motions, Header.of(motions, splits=folds))
    (tmp_path / "clips.pkl").write_bytes(b"")
    pyskl = ["prepare", "--dataset", "pyskl", "--raw", str(tmp_path / "clips.pkl"), "--skeleton"]
    for verb, *arguments, sentence in (
        (*pyskl, str(skeleton_file(tmp_path)), "has 0 roots []; exactly one joint must have the parent ''"),
        (*pyskl, str(skeleton_file(tmp_path, "pelvis", "head")), "has 2 roots ['pelvis', 'head']; exactly one"),
        ("train", "--dataset", "tiny", "--protocol", "fold1,fold6", "no protocol 'fold6'. Known: fold1, fold2"),
    ):  # fmt: skip
        done = run(
            [sys.executable, "-m", f"rayjobs.{verb}", "--storage", str(tmp_path), *arguments, "--json"]
        )
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert sentence in done.stderr and last(done) == {"error": done.stderr.rstrip(), "exit_code": 2}


def test_a_failed_part_is_exit_code_1_without_traceback(verb: list[str]) -> None:
    done = run([*verb, "--do", "part", "--json"])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 of 2 shards failed" in last(done)["error"]


def test_a_fault_of_ours_shows_its_traceback(verb: list[str]) -> None:
    done = run([*verb, "--do", "surprise", "--json"])
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert last(done) == {"error": "KeyError: 'surprise'", "exit_code": 1}


@pytest.mark.parametrize(
    ("do", "how"), [("sleep", signal.SIGINT), ("sleep", signal.SIGTERM), ("sleep with ray", signal.SIGTERM)]
)
def test_interrupt_is_clean(verb: list[str], do: str, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [*verb, "--do", do, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A shell's background jobs, this suite perhaps among them, are deaf to ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    time.sleep(0.1)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130


def test_an_interrupt_that_python_drops_is_repeated(verb: list[str]) -> None:
    process = subprocess.Popen(
        [*verb, "--do", "sleep while an object dies", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=45)
    assert process.returncode == 130 and "Exception ignored" in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130


def test_workers_do_not_speak_after_the_last_line(verb: list[str]) -> None:
    done = run([*verb, "--do", "ray", "--json"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "a table" and len(done.stdout.splitlines()) == 2
    assert last(done) == {"answer": 3, "started": True}


def test_what_ray_says_of_a_lost_actor_is_no_line_of_the_table(verb: list[str]) -> None:
    done = run([*verb, "--do", "lose an actor", "--json"])
    assert (done.returncode, done.stdout) == (0, "a table\n{}\n") and "retries remaining" in done.stderr


def test_help_describes_every_option(verb: list[str]) -> None:
    text = " ".join(run([*verb, "--help"]).stdout.split())
    for words in ("Do one of several things.", "What to do.", "s3://bucket/prefix", "Logical CPUs"):
        assert words in text


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 101, "ü"])
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        check_name("run", name)


@pytest.mark.parametrize("given", ["guidance", "=2", "guidance="])
def test_wrong_fields_are_named(given: str) -> None:
    with pytest.raises(InputError, match=f"--sampling has '{given}'"):
        parse_fields("--sampling", (given,))


def test_fields_are_json_or_text() -> None:
    given = ("guidance=2", "solver=ddim", 'sources={"label": 1}')
    assert parse_fields("--sampling", given) == {"guidance": 2, "solver": "ddim", "sources": {"label": 1}}


def test_plain_is_json_for_numpy_and_nan() -> None:
    value = {
        1: np.float32(0.5),
        "a": (np.int64(3), float("inf")),
        "b": np.array([1.0, np.nan]),
        "p": Path("x"),
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": 0.5,
        "a": [3, None],
        "b": [1.0, None],
        "p": "x",
    }

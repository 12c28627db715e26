"""The loop on a tiny model: what a step does, and runs that end with the same bits, cut or not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.errors import BundleError, DivergedError, RunFileError, UsageError
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.snapshot import save_snapshot
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.rules import RULES
from edgezo_runtime.training.replay import replay
from edgezo_runtime.training.run_log import RunLog
from tests.runtime.tiny_sets import ONE_TOKEN_WORDS, random_set
from tests.runtime.tuner_runs import SIZES, bits, losses_of, resumed_bits, run_to_the_end, unstarted

pytestmark = pytest.mark.usefixtures("unsynced")

BASE = TuneConfig(
    modules="all",
    steps=6,
    max_time_s=0,
    batch_size=2,
    lr=0.03,
    eps=0.01,
    blocks="all",
    save_every=1000,
)
SCHEDULES = ("all", "cyclic", "random:1", "last:1")


@pytest.fixture
def examples(bundle):
    return random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)


# --- steps ---


@pytest.mark.parametrize(("method", "probes"), [("auto", 2), ("zo-sgd", 2), ("rloo", 8)])
def test_a_report_says_what_the_step_did(bundle, examples, tmp_path, method, probes):
    config = dataclasses.replace(BASE, method=method, schedule="cyclic", lr_schedule="linear")
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        first, second, *_, last = list(tuner)
        assert tuner.done
        assert tuner.run.fraction_done == 1
        assert tuner.step_number == 6
        assert tuner.run.elapsed_s >= first.elapsed_s + last.elapsed_s > 0
    assert (first.step, second.step, last.step) == (0, 1, 5)
    assert (first.blocks, second.blocks) == ((0,), (1,))
    assert first.rows == 2 * probes
    indices = unstarted(
        tuner.run.engine, examples, config, tuner.run.folder
    ).run.probes.batches.indices(0)
    assert first.tokens == probes * sum(SIZES[index] for index in indices)
    assert first.lr == pytest.approx(0.03 * (1 - 0.5 / 6))
    assert last.lr == pytest.approx(0.03 * 0.5 / 6)
    assert 0 < first.loss < 20
    assert first.projected_grad > 0


def test_the_journal_has_every_step_before_it_is_applied(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        reports = list(tuner)
    records = list(read_journal(tmp_path / "journal.bin").records)
    assert [record.step for record in records] == list(range(6))
    assert [record.lr for record in records] == [report.lr for report in reports]
    assert [record.blocks for record in records] == [(0, 1)] * 6
    for record, report in zip(records, reports, strict=True):
        assert record.losses.mean() == pytest.approx(report.loss, rel=1e-6)


def test_time_ends_a_run_and_drives_its_rate(bundle, examples, tmp_path, monkeypatch):
    clock = iter(np.arange(0, 1000, 0.5).tolist())
    monkeypatch.setattr("edgezo_runtime.training.loop.time.monotonic", lambda: next(clock))
    config = dataclasses.replace(BASE, steps=0, max_time_s=4.0, lr_schedule="linear")
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        measuring = tuner.run.elapsed_s
        assert measuring == 0.5
        reports = list(tuner)
        # a step reads the clock three times; the journal has it once, for when to sync
        spent = reports[0].elapsed_s
        assert len(reports) == np.ceil((4.0 - measuring) / spent)
        assert tuner.run.elapsed_s == pytest.approx(measuring + spent * len(reports))
    rates = [report.lr / 0.03 for report in reports]
    left = 4.0 - measuring
    assert rates == pytest.approx([1 - spent * i / left for i in range(len(rates))])


def test_the_time_of_measuring_does_not_change_the_first_rate(
    bundle, examples, tmp_path, monkeypatch
):
    """Pins a first learning rate that depended on how fast the machine was."""
    config = dataclasses.replace(BASE, lr="auto", eps="auto", max_time_s=300, steps=2)
    found = []
    for pace in (0.001, 5.0):
        clock = iter(np.arange(0, 10**6 * pace, pace))
        with monkeypatch.context() as patch:
            patch.setattr(
                "edgezo_runtime.training.loop.time.monotonic", lambda clock=clock: next(clock)
            )
            with Tuner.open(bundle, examples, config, tmp_path / f"{pace}") as tuner:
                rates = dataclasses.replace(tuner.run.rates, seconds=0)
                found.append((rates, tuner.step().lr))
            with Tuner.open(bundle, examples, config, tmp_path / f"{pace}", resume=True) as tuner:
                rates = dataclasses.replace(tuner.run.rates, seconds=0)
                assert (rates, tuner.step_number) == (found[0][0], 1)
    assert found[0] == found[1]


def test_a_measured_rate_that_stays_is_a_third_of_one_that_falls(bundle, examples, tmp_path):
    found = {}
    for name in ("constant", "linear"):
        config = dataclasses.replace(BASE, lr="auto", lr_schedule=name)
        with Tuner.open(bundle, examples, config, tmp_path / name) as tuner:
            found[name] = tuner.run.rates.lr
    assert found["constant"] == pytest.approx(found["linear"] / 3, rel=1e-6)


def test_stop_ends_the_iteration(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        for report in tuner:
            if report.step == 1:
                tuner.stop()
        assert tuner.done
        assert tuner.step_number == 2


def test_a_closed_tuner_refuses(bundle, examples, tmp_path):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path)
    tuner.step()
    tuner.close()
    tuner.close()
    for call in (tuner.step, tuner.snapshot):
        with pytest.raises(UsageError, match="the tuner is closed"):
            call()
    assert tuner.adapter().keys() == tuner.run.theta.keys()
    assert not (tmp_path / "prefix.cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, made in METHODS.items() if made.any_rule])
def test_the_loss_falls_on_a_toy_task(bundle, tmp_path, method):
    """The last token of the prompt says the class."""
    examples = random_set("labels", [4] * 12, bundle.manifest.tokenizer.pad_id)
    for example in examples:
        example.tokens[-1] = 20 + example.label
    config = dataclasses.replace(
        BASE, method=method, steps=40, batch_size=12, lr=0.1, average=0.0, lr_schedule="linear"
    )
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        before = tuner.evaluate(examples)
        for _ in tuner:
            pass
        after = tuner.evaluate(examples)
    assert after.loss < 0.7 * before.loss
    assert after.accuracy >= before.accuracy


# --- what trains ---


def with_both_factors(bundle, folder) -> Bundle:
    """The bundle as `--lora-train ab` makes it: the graphs are the same."""
    shutil.copytree(bundle.root, folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for info in manifest["trainables"]:
        info["trains"] = True
    manifest["scheme"]["train"] = "ab"
    path.write_text(json.dumps(manifest))
    return Bundle.open(folder)


def test_a_frozen_factor_never_changes(bundle, examples, tmp_path):
    both = with_both_factors(bundle, tmp_path / "ab")
    for own, changes in ((bundle, {"lora_B"}), (both, {"lora_A", "lora_B"})):
        initial = own.trainables()
        with Tuner.open(own, examples, BASE, tmp_path / f"run{len(changes)}") as tuner:
            for _ in tuner:
                pass
            adapter = tuner.adapter()
        changed = {
            name.rpartition(".")[2] for name in adapter if (adapter[name] != initial[name]).any()
        }
        assert changed == changes
        assert all(value.dtype == np.float32 for value in adapter.values())


@pytest.mark.parametrize(("schedule", "blocks"), [("last:1", "auto"), ("all", "1")])
def test_blocks_that_do_not_train_keep_their_bits(bundle, examples, tmp_path, schedule, blocks):
    config = dataclasses.replace(BASE, schedule=schedule, blocks=blocks)
    initial = bundle.trainables()
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        assert (tmp_path / "prefix.cache").exists()
        reports = list(tuner)
        adapter = tuner.adapter()
    assert {report.blocks for report in reports} == {(1,)}
    own = {info.name: info.block for info in bundle.manifest.trainables if info.trains}
    for name, block in own.items():
        assert (adapter[name] != initial[name]).any() == (block == 1)


def test_a_run_beyond_the_horizon_takes_smaller_steps(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, steps=8, horizon=2, lr_schedule="constant")
    with Tuner.open(bundle, examples, config, tmp_path / "long") as tuner:
        assert [report.lr for report in tuner] == pytest.approx([BASE.lr / 4] * 8)
    config = dataclasses.replace(config, horizon=0)
    with Tuner.open(bundle, examples, config, tmp_path / "never") as tuner:
        assert tuner.step().lr == pytest.approx(BASE.lr)


def test_the_adapter_is_the_running_average(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, average=0.5, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        name = next(iter(tuner.run.state.slots))
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.theta[name])
        seen = [(tuner.step(), tuner.run.theta[name].copy())[1] for _ in range(3)]
        expected = sum(value * 0.5 ** (3 - i) for i, value in enumerate(seen)) / (1 - 0.5**3)
        np.testing.assert_allclose(tuner.adapter()[name], expected, rtol=1e-5, atol=1e-7)
        handed_out = tuner.adapter()
        for value in handed_out.values():
            value[:] = np.nan
        assert all(np.isfinite(value).all() for value in tuner.run.theta.values())
        assert all(np.isfinite(value).all() for value in tuner.adapter().values())
    config = dataclasses.replace(BASE, average=0.0, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path / "plain") as tuner:
        list(tuner)
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.theta[name])


# --- the folder ---


def test_a_journal_that_cannot_be_closed_lets_the_folder_go(
    bundle, examples, tmp_path, monkeypatch
):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path)
    close = tuner.run.log._journal.close

    def full() -> None:
        close()
        raise RunFileError("no space left")

    monkeypatch.setattr(tuner.run.log._journal, "close", full)
    with pytest.raises(RunFileError, match="no space left"):
        tuner.close()
    Tuner.open(bundle, examples, BASE, tmp_path, resume=True).close()


def test_a_folder_with_a_run_is_not_overwritten(bundle, examples, tmp_path):
    expected = run_to_the_end(bundle, examples, BASE, tmp_path)
    with pytest.raises(UsageError, match="holds a run; continue it, or choose another folder"):
        Tuner.open(bundle, examples, BASE, tmp_path, resume=False)
    assert run_to_the_end(bundle, examples, BASE, tmp_path) == expected


def test_a_run_whose_folder_is_removed_ends_with_a_word(bundle, examples, tmp_path):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path / "run")
    tuner.step()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunFileError, match=r"journal .* was removed while the run went on"):
        tuner.close()
    assert tuner.status.phase == "closed"
    tuner = Tuner.open(bundle, examples, BASE, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunFileError, match="removed"):
        tuner.snapshot()
    with pytest.raises(RunFileError, match="removed"):
        tuner.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError, RunFileError])
@pytest.mark.parametrize("where", ["append", "apply"])
def test_a_step_that_breaks_off_is_not_recorded_twice(
    bundle, examples, tmp_path, monkeypatch, where, error
):
    """Pins a tuner that went on when a step was in its journal and not in its state."""
    expected = run_to_the_end(bundle, examples, BASE, tmp_path / "whole")
    with Tuner.open(bundle, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
        owner = {"append": tuner.run.log._journal, "apply": tuner.run.trajectory}[where]
        done = getattr(owner, where)

        def broken(*args: object) -> None:
            done(*args)
            raise error("in between")

        monkeypatch.setattr(owner, where, broken)
        with pytest.raises(error, match="in between"):
            tuner.step()
        with pytest.raises(UsageError, match="the tuner is closed"):
            tuner.step()
    assert run_to_the_end(bundle, examples, BASE, tmp_path / "run") == expected
    steps = [record.step for record in read_journal(tmp_path / "run/journal.bin").records]
    assert steps == list(range(6))


def test_a_journal_with_a_step_twice_is_refused(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        tuner.step()
        tuner.snapshot()
    records = list(read_journal(tmp_path / "journal.bin").records)
    with Journal.open(tmp_path / "journal.bin") as journal:
        journal.append(records[1])
    with pytest.raises(RunFileError, match="step 1 where step 2 should be"):
        Tuner.open(bundle, examples, BASE, tmp_path)


@pytest.mark.parametrize("rates", [{"lr": 1e-31}, {"eps": 1e31}])
def test_rates_that_no_run_can_be_resumed_with_are_refused(bundle, examples, tmp_path, rates):
    with pytest.raises(UsageError, match=r"(lr|eps).*must be 1e-30 to 1e\+30"):
        Tuner.open(bundle, examples, dataclasses.replace(BASE, **rates), tmp_path)
    assert not (tmp_path / "journal.bin").exists()


def test_whole_numbers_and_floats_are_the_same_settings(bundle, examples, tmp_path):
    whole = dataclasses.replace(BASE, clip=1, average=0)
    with Tuner.open(bundle, examples, whole, tmp_path) as tuner:
        tuner.step()
        tuner.snapshot()
    real = dataclasses.replace(BASE, clip=1.0, average=0.0)
    with Tuner.open(bundle, examples, real, tmp_path) as tuner:
        assert tuner.step_number == 1


def test_a_tuner_that_is_closed_while_it_starts_lets_the_folder_go(
    bundle, examples, tmp_path, monkeypatch
):
    """Pins a run that went on without its lock."""
    begin, entered = RunLog.begin, threading.Event()

    def slow(log: RunLog, rates: Rates) -> None:
        entered.set()
        time.sleep(0.2)
        begin(log, rates)

    monkeypatch.setattr(RunLog, "begin", slow)
    tuner = unstarted(Engine(bundle), examples, BASE, RunFolder(tmp_path))
    thread = threading.Thread(target=tuner.start)
    thread.start()
    entered.wait()
    tuner.close()
    thread.join()
    assert tuner.closed
    with pytest.raises(UsageError, match="the tuner is closed"):
        tuner.start()
    monkeypatch.undo()
    run_to_the_end(bundle, examples, BASE, tmp_path)


_HOLD = """
import sys
import threading
import time
from pathlib import Path
from edgezo_runtime.journal.run_folder import RunFolder
RunFolder(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time(bundle, examples, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {other.pid} is tuning in this folder"):
            Tuner.open(bundle, examples, BASE, tmp_path)
        assert not (tmp_path / "journal.bin").exists()
        other.communicate("")
    with Tuner.open(bundle, examples, BASE, tmp_path):
        with pytest.raises(UsageError, match="this process is tuning"):
            Tuner.open(bundle, examples, BASE, tmp_path, resume=True)
        assert RunFolder(tmp_path).has_journal()
    run = RunFolder(tmp_path)
    with Tuner.open(bundle, examples, BASE, run) as first:
        with pytest.raises(UsageError, match="another tuner of this process"):
            Tuner.open(bundle, examples, BASE, run)
        first.step()
    Tuner.open(bundle, examples, BASE, tmp_path, resume=True).close()


def test_a_run_of_other_inputs_is_refused(bundle, examples, tmp_path):
    run_to_the_end(bundle, examples, BASE, tmp_path / "run")
    other_data = random_set("labels", SIZES, examples.pad_id, seed=1)
    fewer = random_set("labels", SIZES[:5], examples.pad_id)
    both = with_both_factors(bundle, tmp_path / "ab")
    manifest = both.manifest
    files = dict(manifest.files)
    name = next(iter(files))
    files[name] = dataclasses.replace(files[name], sha256="f" * 64)
    altered = Bundle(both.root, dataclasses.replace(manifest, files=files), trusted=True)
    for inputs, message in (
        ((bundle, examples, dataclasses.replace(BASE, lr=0.5)), r"config\.lr was 0\.03, is 0\.5"),
        ((bundle, examples, dataclasses.replace(BASE, seed=1)), r"config\.seed was 0, is 1"),
        ((bundle, other_data, BASE), "data was '0000.*is '0000"),
        ((bundle, fewer, BASE), "rows was 8, is 5"),
        ((altered, examples, BASE), rf"bundle\.{name} was '.*is 'fff"),
    ):
        with pytest.raises(RunFileError, match=message) as caught:
            Tuner.open(*inputs, tmp_path / "run", resume=True)
        assert "takes them from the run) or another folder with -o" in str(caught.value)
    relaxed = dataclasses.replace(BASE, save_every=3)  # changes nothing that is computed
    Tuner.open(bundle, examples, relaxed, tmp_path / "run", resume=True).close()


# --- divergence ---


@pytest.mark.parametrize("normalize", [True, False])
def test_a_loss_that_is_not_finite_leaves_the_run_as_it_was(
    bundle, examples, tmp_path, monkeypatch, normalize
):
    config = dataclasses.replace(BASE, normalize=normalize, rollback=False)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        for _ in range(3):
            tuner.step()
        before = bits(tuner)
        score = tuner.run.engine.score

        def poisoned(*args, **options):
            scores = score(*args, **options)
            scores[1, 0] = np.nan
            return scores

        with monkeypatch.context() as patch:
            patch.setattr(tuner.run.engine, "score", poisoned)
            with pytest.raises(DivergedError, match="loss nan is not finite at probe 1 of 2"):
                tuner.step()
        assert bits(tuner) == before
        assert tuner.step_number == 3
    assert len(list(read_journal(tmp_path / "run" / "journal.bin").records)) == 3
    assert run_to_the_end(bundle, examples, config, tmp_path / "run", resume=True) == whole


def test_parameters_that_are_not_finite_are_noticed(bundle, examples, tmp_path):
    unguarded = dataclasses.replace(BASE, rollback=False)
    with Tuner.open(bundle, examples, unguarded, tmp_path) as tuner:
        tuner.run.theta[next(iter(tuner.run.state.slots))][0, 0] = np.inf
        with pytest.raises(DivergedError):
            tuner.step()


# --- resume ---


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", RULES)
def test_a_cut_run_ends_with_the_same_bits(bundle, examples, tmp_path, rule, schedule):
    """Every method has its turn in `tests/contract/test_resume.py`."""
    for shaped in (True, False):
        config = dataclasses.replace(
            BASE, rule=rule, schedule=schedule, steps=4, lr=0.01,
            normalize=shaped, average=0.9 if shaped else 0.0,
        )  # fmt: skip
        whole = run_to_the_end(bundle, examples, config, tmp_path / f"whole{shaped}")
        folder = tmp_path / f"cut{shaped}"
        options = {"cut": 7, "snapshot_at": 2} if shaped else {"cut": 7}
        assert resumed_bits(bundle, examples, config, folder, 3, **options) == whole
        journals = [tmp_path / f"{name}{shaped}" / "journal.bin" for name in ("whole", "cut")]
        assert losses_of(journals[0]) == losses_of(journals[1])


@pytest.mark.parametrize("schedule", ["all", "random:1"])
def test_a_cut_run_on_answers_ends_with_the_same_bits(bundle, examples, tmp_path, schedule):
    for example in examples:
        example.tokens[-1] = 42
    config = dataclasses.replace(BASE, schedule=schedule, rule="momentum")
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    options = {"cut": 7, "snapshot_at": 2}
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 3, **options) == whole
    with Tuner.open(bundle, examples, config, tmp_path / "scope") as tuner:
        assert tuner.run.scope == "answer"
        assert isinstance(tuner.run.probes.cache, AnswerCache)
        assert tuner.step().tokens == 4  # one a row
    everywhere = dataclasses.replace(config, scope="all")
    assert run_to_the_end(bundle, examples, everywhere, tmp_path / "all") != whole


@pytest.mark.parametrize(
    ("steps", "cut", "snapshot_at"),
    [(0, 0, None), (1, 0, None), (1, 1, None), (6, 0, 3), (6, 5, 5), (4, 150, 1), (5, 0, 0)],
)
def test_a_run_cut_anywhere_ends_with_the_same_bits(
    bundle, examples, tmp_path, steps, cut, snapshot_at
):
    config = dataclasses.replace(BASE, rule="adam", lr=0.01, schedule="random:1")
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    options = {"cut": cut, "snapshot_at": snapshot_at}
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", steps, **options) == whole


def test_snapshots_on_the_way_change_nothing(bundle, examples, tmp_path):
    often = dataclasses.replace(BASE, save_every=1, rule="adam", lr=0.01)
    rarely = dataclasses.replace(often, save_every=1000)
    expected = run_to_the_end(bundle, examples, rarely, tmp_path / "rarely")
    assert run_to_the_end(bundle, examples, often, tmp_path / "often") == expected
    (tmp_path / "often" / "snapshot.safetensors").unlink()
    # from the journal alone
    assert run_to_the_end(bundle, examples, often, tmp_path / "often", resume=True) == expected


def test_a_snapshot_ahead_of_the_journal_is_not_used(bundle, examples, tmp_path):
    """A disk that lost what it had called safe. Pins a journal with steps left out."""
    config = dataclasses.replace(BASE, rule="adam", lr=0.01)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    options = {"cut": 100, "snapshot_at": 4}
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 5, **options) == whole
    records = read_journal(tmp_path / "cut" / "journal.bin").records
    assert [record.step for record in records] == list(range(6))
    assert run_to_the_end(bundle, examples, config, tmp_path / "cut", resume=True) == whole


def test_a_run_resumes_with_more_than_one_class_of_words(bundle, tmp_path):
    """Candidates: an example has several sequences, and shares its directions among them."""
    examples = random_set("candidates", SIZES, bundle.manifest.tokenizer.pad_id)
    assert len(ONE_TOKEN_WORDS) == examples.sequences_per_example == 3
    config = dataclasses.replace(BASE, schedule="last:1", steps=4)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 2, cut=3) == whole


def test_the_prefix_cache_of_a_run_cut_off_is_made_again(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, schedule="last:1")
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    with Tuner.open(bundle, examples, config, tmp_path / "cut") as tuner:
        tuner.step()
    (tmp_path / "cut" / "prefix.cache").write_bytes(b"\xff" * 10_000)
    assert run_to_the_end(bundle, examples, config, tmp_path / "cut", resume=True) == whole


# --- the bundle ---


def alter(path):
    """Change the last weight, and neither size nor name."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_altered_weights_are_not_tuned_on(bundle, examples, tmp_path):
    """The digests of the manifest were compared with those of the journal, never with the files."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter(copy / "weights.safetensors")
    for run in ("run", "another"):
        with pytest.raises(BundleError, match=r"weights.safetensors: sha256"):
            Tuner.open(copy, examples, BASE, tmp_path / run)
    assert not (tmp_path / "another").exists()
    trusted = Bundle.open(copy, verify=False)
    with Tuner.open(trusted, examples, BASE, tmp_path / "run") as tuner:
        assert tuner.step_number == 1


def test_replay_looks_at_the_trainables_it_begins_with(bundle, examples, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter(copy / "trainable.safetensors")
    with pytest.raises(BundleError, match=r"trainable.safetensors: sha256"):
        replay(Bundle.open(copy), tuner.run.folder.journal)


def test_a_snapshot_of_other_shapes_is_refused_before_it_is_read(
    bundle, examples, tmp_path, monkeypatch
):
    """A hundred gigabytes would have been asked for first."""
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        kept = tuner.run.state.snapshot(tuner.run.log._header().digest())
    name = min(kept.theta)
    theta = {**kept.theta, name: np.zeros((3, 3), np.float32)}
    save_snapshot(tuner.run.folder.snapshot, dataclasses.replace(kept, theta=theta))
    monkeypatch.setattr(
        "edgezo_runtime.journal.snapshot.read_tensors", lambda *_: pytest.fail("was read")
    )
    with pytest.raises(RunFileError, match=r"\(3, 3\), in this run .*remove it, the journal"):
        Tuner.open(bundle, examples, BASE, tmp_path)

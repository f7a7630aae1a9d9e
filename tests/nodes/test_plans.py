"""Files of measured plans: what is written is read, what does not fit is not used, nothing else is touched."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest

from bwcache_pack.bwcache_core.measure import Lesson, NothingLearned
from bwcache_pack.bwcache_core.plan import parse
from bwcache_pack.bwcache_core.planning import Course, Knowledge
from bwcache_pack.bwcache_core.tried import TriedPlan
from bwcache_pack.nodes import plans
from bwcache_pack.nodes.identity import Setup
from bwcache_pack.nodes.plans import find, remember, remember_trials

SIGMAS = tuple(round(1.0 - 0.1 * i, 6) for i in range(11))
SETUP = Setup("WanModel", "a1b2", "", "euler", "cfg 5", SIGMAS, True)


def taught(scale: float = 1.0, sigmas=SIGMAS[:-1]) -> Lesson:
    steps = tuple(range(len(sigmas)))
    inner = [[scale * (i + 1.0) * (j + 1.0) for j in steps] for i in steps]
    course = Course(steps, tuple(map(float, steps)), tuple(-0.1 for _ in steps))
    return Lesson(Knowledge(course, inner, inner), sigmas, {})


def tried(text: str = "0 2 5 9/10", **psnr: float) -> TriedPlan:
    return TriedPlan(parse(text), "automatic", psnr or {"clip": 40.0})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "user" / "bwcache" / "plans"
    monkeypatch.setattr(plans, "plans_folder", lambda: folder)
    return folder


def found(setup=SETUP):
    return find(lambda: setup)


def the_file(folder):
    [path] = folder.iterdir()
    return path


def test_what_a_run_taught_is_found_again(folder):
    assert remember(SETUP, taught()) == 1
    known = found().knowledge
    assert known.course == taught().knowledge.course
    assert known.guided == taught().knowledge.guided == known.single
    assert known.source.startswith("measured on 1 run, last on 20") and the_file(folder).name in known.source
    assert the_file(folder).name.startswith("WanModel_10_euler_")


def test_the_part_of_a_schedule_that_an_expert_samples_is_named(folder):
    for sigmas in (SIGMAS[:6], SIGMAS[5:]):
        setup = replace(SETUP, sigmas=sigmas)
        remember(setup, taught(sigmas=sigmas[:-1]))
    high, low = (found(replace(SETUP, sigmas=sigmas)).knowledge.source for sigmas in (SIGMAS[:6], SIGMAS[5:]))
    assert high.startswith("measured on 1 run of sigma 1 to 0.5, last on") and "of sigma 0.5 to 0, last on" in low
    assert len(list(folder.iterdir())) == 2 and found().knowledge is None


def test_runs_add_up(folder):
    assert [remember(SETUP, taught(scale)) for scale in (1.0, 2.0, 6.0)] == [1, 2, 3]
    known = found().knowledge
    assert known.runs == 3 and known.guided[1][0] == pytest.approx(2.0 * 3.0)
    assert "3 runs" in known.source and len(json.loads(the_file(folder).read_text())["dates"]) == 3


def test_the_same_run_again_adds_nothing(folder):
    remember(SETUP, taught())
    before = the_file(folder).read_text()
    assert plans.was_measured(SETUP, taught(1.0001)) and not plans.was_measured(SETUP, taught(1.1))
    with pytest.raises(NothingLearned, match="measured before"):
        remember(SETUP, taught(1.0001))
    assert the_file(folder).read_text() == before
    assert not plans.was_measured(replace(SETUP, sampler="heun"), taught())


def test_the_file_can_be_read_by_people_and_is_written_in_one_piece(folder):
    remember(SETUP, taught())
    text = the_file(folder).read_text()
    told = json.loads(text)
    assert told["bwcache_plan"] == 2 and (told["model"], told["sampler"], told["guidance"]) == ("WanModel", "euler", "cfg 5")
    assert text.isascii() and len(text) < 10_000 and max(map(len, text.splitlines())) < 400
    assert [len(row) for row in told["guided"]] == list(range(1, 11))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "uni_pc"}, "measured only for euler"),
        ({"guidance": "cfg 3"}, "measured only for cfg 5"),
        ({"loras": "x"}, "measured only for no LoRA"),
        ({"weights": "x"}, "measured only for other weights"),
        ({"sigmas": (1.0, 0.5, 0.0)}, "measured only for 10 steps at shift 1"),
        ({"sampler": "heun", "guidance": "cfg 3"}, "measured only for euler, cfg 5"),
    ],
)
def test_what_nearly_fits_is_not_used_and_named(change, words):
    remember(SETUP, taught())
    assert (found(replace(SETUP, **change)).knowledge, found(replace(SETUP, **change)).nearly) == (None, words)


def test_which_of_trials_and_runs_there_are_for_another_setup_is_said():
    remember_trials(replace(SETUP, loras="x"), [tried()])
    assert found().nearly == "tried only for other LoRAs"


def test_what_is_far_off_is_not_mentioned():
    remember(SETUP, taught())
    assert found(replace(SETUP, model="Flux", weights="x", sampler="heun")).nearly == ""


def test_sigmas_fit_within_what_samplers_write_into_them():
    remember(SETUP, taught())
    assert found(replace(SETUP, sigmas=(*SIGMAS[:-1], 0.001))).knowledge is not None


def broken(text: str) -> str:
    return text[: len(text) // 2]


def edited(text: str) -> str:
    return text.replace('"runs": 1', '"runs": 50')


def newer(text: str) -> str:
    return text.replace('"bwcache_plan": 2', '"bwcache_plan": 3')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (broken, "cannot be read"), (edited, "changed by hand"), (newer, "version 3"), (lambda text: "[]", "no file of plans"),
        (lambda text: "[" * 100_000, "cannot be read"), (lambda text: '{"bwcache_plan": 2}', "changed by hand"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_good_is_named_and_not_used(folder, change, words):
    remember(SETUP, taught())
    path = the_file(folder)
    path.write_text(change(path.read_text()))
    result = found()
    assert result.knowledge is None
    [warning] = result.warnings
    assert path.name in warning and words in warning
    before = path.read_text()
    with pytest.raises(NothingLearned, match="Remove it"):
        remember(SETUP, taught())
    assert path.read_text() == before


def test_bytes_that_are_no_text(folder):
    remember(SETUP, taught())
    the_file(folder).write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in found().warnings[0]


def rewritten(path, change) -> None:
    """As BWCache would write it."""
    told = json.loads(path.read_text())
    del told["checksum"]
    change(told)
    path.write_text(json.dumps({**told, "checksum": plans.checksum(told)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["guided"].pop(), lambda told: told.update(runs=math.inf),
        lambda told: told["tried"][0].pop(), lambda told: told["tried"].append(["auto", "automatic", {"a": 40.0}]),
        lambda told: told["tried"].append(["0 2 5/9", "automatic", {"a": 40.0}]),
        lambda told: told["tried"].append(["0 2 5/10", "automatic", {"a": math.nan}]),
        lambda told: told["tried"].append(["0 2 5/10", "automatic", [40.0]]), lambda told: told.update(tried=[[5, "", {"a": 1}]]),
        lambda told: told["tried"].append(["0 2 5/10", "automatic", {}]), lambda told: told.update(runs=0, tried=[]),
        lambda told: told["tried"].append(["0 2 5/10", "automatic", {"a": 1e308}]), lambda told: told.update(runs=10**400),
        lambda told: told["guided"][3].__setitem__(1, 1e200), lambda told: told["evaluations"][0].__setitem__(0, 0.0),
        lambda told: told["evaluations"][0].__setitem__(3, "1.0"),
        lambda told: told.update(runs=-3), lambda told: told.update(dates=[]), lambda told: told.update(sigmas=[1.0, math.nan]),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_together(folder, change):
    remember(SETUP, taught())
    remember_trials(SETUP, [tried()])
    rewritten(the_file(folder), change)
    assert "do not fit together" in found().warnings[0]


def test_a_file_without_trials_as_it_was_written_before_is_read_and_added_to(folder):
    def as_before(told):
        told["bwcache_plan"] = 1
        del told["tried"], told["tried_on"]

    remember(SETUP, taught())
    rewritten(the_file(folder), as_before)
    assert found().knowledge.runs == 1 and found().trials is None and not found().warnings
    remember_trials(SETUP, [tried()])
    assert found().knowledge.runs == 1 and found().trials.plans == (tried(),)


def test_trials_are_found_beside_what_was_measured(folder):
    remember(SETUP, taught())
    remember_trials(SETUP, [tried(a=40.0), tried("0 3 5 9/10", a=41.25)])
    trials = found().trials
    assert [each.plan.text for each in trials.plans] == ["0 2 5 9/10", "0 3 5 9/10"]
    assert trials.plans[1].psnr == {"a": 41.25} and trials.plans[1].kind == "automatic"
    assert trials.source.startswith("last on 20") and the_file(folder).name in trials.source
    assert '["0 3 5 9/10", "automatic", {"a": 41.25}]' in the_file(folder).read_text(), "a line for people"
    assert remember(SETUP, taught(2.0)) == 2
    assert found().trials.plans == trials.plans, "measuring keeps them"
    remember_trials(SETUP, [tried(b=38.0)])
    assert {each.plan.text: each.psnr for each in found().trials.plans}["0 2 5 9/10"] == {"a": 40.0, "b": 38.0}
    assert found().knowledge.runs == 2, "trying keeps what was measured"


def test_trials_are_kept_where_no_run_taught_anything(folder):
    remember_trials(SETUP, [tried()])
    assert found().knowledge is None and found().trials.plans == (tried(),)
    assert remember(SETUP, taught()) == 1
    assert found().knowledge.runs == 1 and found().trials.plans == (tried(),)
    assert len(list(folder.iterdir())) == 1


def test_no_trial_changes_no_file(folder):
    """Where every plan was set aside. A file with neither runs nor trials could not be read."""
    remember_trials(SETUP, [])
    assert not folder.exists()
    remember(SETUP, taught())
    text = the_file(folder).read_text()
    remember_trials(SETUP, [])
    assert the_file(folder).read_text() == text


def test_of_another_setup_no_trial_is_found():
    remember_trials(SETUP, [tried()])
    other = found(replace(SETUP, guidance="cfg 3"))
    assert (other.trials, other.nearly) == (None, "tried only for cfg 5")


def test_whatever_a_name_holds_the_file_lies_in_the_folder(folder):
    for number, name in enumerate(["../../../evil", "/etc/passwd", "a\0b", "CON", "..", "", "x" * 500, "\u65e5\u672c"]):
        remember(replace(SETUP, model=name, sampler=name, weights=str(number)), taught())
    assert len(list(folder.iterdir())) == 8
    assert [path.name for path in folder.parent.parent.iterdir()] == ["bwcache"]
    assert all(path.name.isascii() and len(path.name) < 100 for path in folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need rights there")
def test_links_that_lead_elsewhere_are_not_followed(folder, tmp_path):
    remember(SETUP, taught())
    outside = tmp_path / "outside.json"
    the_file(folder).rename(outside)
    (folder / "link.json").symlink_to(outside)
    assert found() == plans.Found()


def test_a_sampler_that_chooses_its_noise_levels_adds_nothing(folder):
    remember(SETUP, taught())
    before = the_file(folder).read_text()
    with pytest.raises(NothingLearned, match="other noise levels"):
        remember(SETUP, taught(2.0, tuple(sigma * 0.9 for sigma in SIGMAS[:-1])))
    assert the_file(folder).read_text() == before


def test_a_folder_that_cannot_be_made_is_said(folder):
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("in the way")
    with pytest.raises(NothingLearned, match="cannot be written"):
        remember(SETUP, taught())
    assert found() == plans.Found()


def test_nothing_half_is_left_where_writing_fails(folder, monkeypatch):
    remember(SETUP, taught())
    before = the_file(folder).read_text()

    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plans.os, "replace", fails)
    with pytest.raises(NothingLearned, match="No space left"):
        remember(SETUP, taught(2.0))
    assert the_file(folder).read_text() == before


def test_looking_without_a_folder_makes_none_and_reads_no_weight(folder):
    def never():
        raise AssertionError

    assert find(never) == plans.Found() and not folder.exists()


def test_of_two_files_for_one_setup_that_of_more_runs_is_taken(folder):
    remember(SETUP, taught())
    the_file(folder).rename(folder / "from a friend.json")
    text = (folder / "from a friend.json").read_text()
    remember(SETUP, taught(2.0))
    (folder / "old.json").write_text(text)
    assert found().knowledge.source.endswith("from a friend.json")


def test_what_is_added_goes_to_the_file_that_runs_read(folder):
    """Beside a file of more runs, nothing that is tried may be lost in another one."""
    remember(SETUP, taught())
    text = the_file(folder).read_text()
    remember(SETUP, taught(2.0))
    (folder / "a copy of before.json").write_text(text)
    the_file_of_more = next(path for path in folder.iterdir() if "copy" not in path.name).rename(folder / "of a friend.json")
    remember_trials(SETUP, [tried()])
    assert found().knowledge.runs == 2 and found().trials.plans == (tried(),)
    assert found().trials.source.endswith(the_file_of_more.name)


def test_a_name_that_cannot_be_shown_is_shown_in_part(folder):
    """Made of bytes that are no text, and of a line break."""
    remember(SETUP, taught())
    path = the_file(folder).rename(folder / os.fsdecode(b"a\nb\xff.json"))
    assert found().knowledge.source.endswith("a?b?.json")
    remember_trials(SETUP, [tried()])
    assert found().trials.source.endswith("a?b?.json") and list(folder.iterdir()) == [path]
    path.write_text("")
    assert found().warnings == ("The plan a?b?.json is not used: it cannot be read.",)


def test_a_folder_that_cannot_be_read_is_said(folder, monkeypatch):
    remember(SETUP, taught())

    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(plans.Path, "is_dir", closed)
    assert found().warnings == ("Measured plans are not used: their folder cannot be read (Permission denied).",)
    with pytest.raises(NothingLearned, match="cannot be added to"):
        remember_trials(SETUP, [tried()])

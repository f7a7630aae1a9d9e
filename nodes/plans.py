"""What runs in mode measure taught, and what trials of plans found, as files: `bwcache/plans/*.json` in ComfyUI's user directory.

One file for each setup (identity.py), to which further runs add up. Small, and readable: what it is for in words, plans that
were tried, then the matrices that plans are made from. Written only by measuring and trying, and read when a run begins: the
same file makes the same plan.
Names are made here, never taken from outside, and what is no plain file of that folder is not read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from ..bwcache_core.measure import Lesson, NothingLearned
from ..bwcache_core.plan import parse
from ..bwcache_core.planning import Course, Found, Knowledge, Matrix
from ..bwcache_core.schedule import ZERO
from ..bwcache_core.tried import Trials, TriedPlan, merged
from .identity import Setup, digest

VERSION = 2
READ = (1, VERSION)  # 1 had no trials
FOLDER = ("bwcache", "plans")
LARGEST = 16 * 2**20  # bytes of a file that is read
MOST_FILES = 1_000
MOST_DATES = 100
NEARLY = 2  # differences with which a setup nearly fits
FULL_NOISE = 0.99  # of a flow
PRECISION = 9  # digits of the numbers kept
LARGEST_NUMBER = 1e30  # no sum of squares of such is infinite


class PlanFileError(ValueError):
    """Why a file of plans is not used."""


@dataclass(frozen=True)
class PlanFile:
    """What a file holds. knowledge: None where plans were tried, but no run taught anything. dates, marks: of its newest runs,
    oldest first. sigmas: of the evaluations. tried: oldest first, tried_on: when the last was."""

    name: str
    setup: Setup
    knowledge: Knowledge | None = None
    sigmas: tuple[float, ...] = ()
    dates: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    tried: tuple[TriedPlan, ...] = ()
    tried_on: str = ""

    @property
    def runs(self) -> int:
        return self.knowledge.runs if self.knowledge else 0

    @property
    def newest(self) -> str:
        return max((*self.dates, self.tried_on))

    @property
    def found(self) -> Found:
        """What it tells, with the words for the notes of plans."""
        runs = ("1 run" if self.runs == 1 else f"{self.runs} runs") + part_in_words(self.setup)
        known = self.knowledge and replace(
            self.knowledge, source=f"measured on {runs}, last on {self.dates[-1][:10]}, {printable(self.name)}"
        )
        trials = Trials(self.tried, f"last on {self.tried_on[:10]}, {printable(self.name)}") if self.tried else None
        return Found(known, trials=trials)


def plans_folder() -> Path | None:
    """Where files of plans lie; None without ComfyUI. Looked up, not imported: tests and scripts have none."""
    paths = sys.modules.get("folder_paths")
    return Path(paths.get_user_directory(), *FOLDER) if paths else None


def part_in_words(setup: Setup) -> str:
    """Which part of a schedule it is, for one of two experts; empty for a whole one."""
    first, last = setup.sigmas[0], setup.sigmas[-1]
    whole = abs(last) <= ZERO and (not setup.flow or first > FULL_NOISE)
    return "" if whole or setup.schedule.rises else f" of sigma {first:.3g} to {last:.3g}"


# --- which file ---


def find(make_setup: Callable[[], Setup]) -> Found:
    """What is known for a setup, which is made only where there is a file to hold it against."""
    files, warnings = read_all()
    if not files:
        return Found(None, "", tuple(warnings))
    setup = make_setup()
    if best := best_of(files, setup):
        return replace(best.found, warnings=tuple(warnings))
    return Found(None, nearest(files, setup), tuple(warnings))


def nearest(files: Sequence[PlanFile], setup: Setup) -> str:
    """What is known for a setup that is nearly this one, in words; empty for nothing."""
    near = [(setup.differences(file.setup), file) for file in files]
    differences, file = min(near, key=lambda found: (len(found[0]), found[1].name))
    return f"{'measured' if file.runs else 'tried'} only for {', '.join(differences)}" if len(differences) <= NEARLY else ""


def best_of(files: Sequence[PlanFile], setup: Setup) -> PlanFile | None:
    """The file of a setup: where people put in a second one, that of the most runs, then of the most trials."""
    fitting = [file for file in files if not setup.differences(file.setup)]
    return max(fitting, key=lambda file: (file.runs, len(file.tried), file.newest, file.name), default=None)


def read_all() -> tuple[list[PlanFile], list[str]]:
    """Every file of the folder in the order of their names, and a warning for each that cannot be used."""
    files, warnings = [], []
    try:
        paths = plain_files()
    except OSError as error:
        return [], [f"Measured plans are not used: their folder cannot be read ({error.strerror})."]
    for path in paths:
        try:
            files.append(read(path))
        except PlanFileError as error:
            warnings.append(f"The plan {printable(path.name)} is not used: {error}")
    return files, warnings


def plain_files() -> list[Path]:
    """Raises OSError."""
    folder = plans_folder()
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.json") if path.is_file() and not path.is_symlink())[:MOST_FILES]


def printable(name: str) -> str:
    """A file's name as it can be shown and logged, whatever bytes it is made of."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def file_name(setup: Setup) -> str:
    """Model, steps and sampler for the eye, a hash for the rest."""
    words = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{setup.model}_{len(setup.sigmas) - 1}_{setup.sampler}")[:60].strip("._-")
    rounded = tuple(float(f"{sigma:.3g}") for sigma in setup.sigmas)
    return f"{words}_{digest([asdict(setup) | {'sigmas': rounded}])}.json"


# --- adding a run ---


def remember(setup: Setup, lesson: Lesson) -> int:
    """Add what a run taught to the file of its setup. Returns how many runs that holds. Raises NothingLearned."""
    mark = mark_of(lesson)

    def learned(before: PlanFile) -> PlanFile:
        if mark in before.marks:
            raise NothingLearned("this very run was measured before. Another seed or prompt teaches more")
        return added(before, replace(before, knowledge=lesson.knowledge, sigmas=lesson.sigmas, dates=(now(),), marks=(mark,)))

    return changed(setup, learned).runs


def remember_trials(setup: Setup, tried: Sequence[TriedPlan]) -> None:
    """Add what trials of plans found to the file of their setup; no trial changes nothing. Raises NothingLearned."""
    if tried:
        changed(setup, lambda before: replace(before, tried=merged(before.tried, tried), tried_on=now()))


def changed(setup: Setup, change: Callable[[PlanFile], PlanFile]) -> PlanFile:
    """The file of a setup, changed and written. Raises NothingLearned."""
    folder, before = plans_folder(), file_for(setup)
    if folder is None:
        raise NothingLearned("there is no folder for plans")
    name = before.name if before else file_name(setup)
    file = change(before or PlanFile(name, setup))
    try:
        if before is None and (folder / name).exists():
            raise NothingLearned(f"the plan {name} cannot be added to. Remove it, and measure anew")
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name, text_of(file))
    except OSError as error:
        raise NothingLearned(f"the plan {printable(name)} cannot be written ({error.strerror})") from error
    return file


def now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")


def file_for(setup: Setup) -> PlanFile | None:
    """The file that runs of a setup are added to."""
    return best_of(read_all()[0], setup)


def was_measured(setup: Setup, lesson: Lesson) -> bool:
    """Whether that very run is in its file."""
    file = file_for(setup)
    return file is not None and mark_of(lesson) in file.marks


def mark_of(lesson: Lesson) -> str:
    """Tells a run from others: the sizes of its outputs, in few digits, since a GPU does not add up the same way twice."""
    guided = lesson.knowledge.guided
    return digest([f"{guided[n][n]:.3g}" for n in range(len(guided))])


def added(before: PlanFile, new: PlanFile) -> PlanFile:
    """Both runs in one. Raises NothingLearned where they do not match."""
    if before.knowledge is None:
        return new
    same = len(before.sigmas) == len(new.sigmas) and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=2e-3) for a, b in zip(before.sigmas, new.sigmas, strict=True)
    )
    if not same:
        raise NothingLearned("the sampler chooses other noise levels in each run")
    runs, old, now = before.runs, before.knowledge, new.knowledge
    knowledge = Knowledge(now.course, mean(old.guided, now.guided, runs), mean(old.single, now.single, runs), runs + 1)
    dates, marks = (*before.dates, *new.dates)[-MOST_DATES:], (*before.marks, *new.marks)[-MOST_DATES:]
    return replace(before, knowledge=knowledge, dates=dates, marks=marks)


def mean(old: Matrix, new: Matrix, runs: int) -> list[list[float]]:
    """Of `runs` matrices and one more."""
    return [[(runs * a + b) / (runs + 1) for a, b in zip(*rows, strict=True)] for rows in zip(old, new, strict=True)]


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


# --- as text ---


def text_of(file: PlanFile) -> str:
    """JSON, a row of a matrix on each line."""
    told = {
        "bwcache_plan": VERSION,
        **asdict(file.setup),
        "sigmas": rounded(file.setup.sigmas),
        "runs": file.runs,
        "dates": list(file.dates),
        "marks": list(file.marks),
        "tried_on": file.tried_on,
        "tried": [[each.plan.text, each.kind, dict(each.psnr)] for each in file.tried],
        **(matrices(file.knowledge, file.sigmas) if file.knowledge else {}),
    }
    return laid_out({**told, "checksum": checksum(told)})


def laid_out(told: dict) -> str:
    lines = []
    for key, value in told.items():
        nested = isinstance(value, list) and value and isinstance(value[0], list)
        text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if nested else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def matrices(knowledge: Knowledge, sigmas: Sequence[float]) -> dict:
    course = knowledge.course
    evaluations = zip(course.steps, rounded(course.places), rounded(course.gains), rounded(sigmas), strict=True)
    return {
        "evaluations": [list(evaluation) for evaluation in evaluations],
        "guided": lower(knowledge.guided),
        "single": lower(knowledge.single),
    }


def checksum(told: dict) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def rounded(numbers) -> list[float]:
    return [float(f"{number:.{PRECISION}g}") for number in numbers]


def lower(matrix: Matrix) -> list[list[float]]:
    """The lower triangle: the other half is the same."""
    return [rounded(row[: n + 1]) for n, row in enumerate(matrix)]


def whole(rows: list[list[float]]) -> list[list[float]]:
    return [[rows[max(i, j)][min(i, j)] for j in range(len(rows))] for i in range(len(rows))]


def read(path: Path) -> PlanFile:
    """Raises PlanFileError."""
    try:
        if path.stat().st_size > LARGEST:
            raise PlanFileError("it is too large.")
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise error if isinstance(error, PlanFileError) else PlanFileError("it cannot be read.") from error
    if not isinstance(told, dict) or not isinstance(told.get("bwcache_plan"), int):
        raise PlanFileError("it is no file of plans.")
    if told["bwcache_plan"] not in READ:
        raise PlanFileError(f"it is of version {told['bwcache_plan']}, and this BWCache reads up to version {VERSION}.")
    if told.pop("checksum", "") != checksum(told):
        raise PlanFileError("it was changed by hand or damaged. Remove it, and measure anew.")
    try:
        return file_of(path.name, told)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise PlanFileError("its numbers do not fit together. Remove it, and measure anew.") from error


def file_of(name: str, told: dict) -> PlanFile:
    names = ("model", "weights", "loras", "sampler", "guidance")
    setup = Setup(*(str(told[key]) for key in names), tuple(map(float, told["sigmas"])), bool(told["flow"]))
    file = PlanFile(name, setup, marks=tuple(map(str, told["marks"])), dates=tuple(map(str, told["dates"])))
    if told.get("tried"):
        file = replace(file, tried=tuple(tried_of(row, setup) for row in told["tried"]), tried_on=str(told["tried_on"]))
    if told["runs"] or not file.tried:
        knowledge, sigmas = knowledge_of(told, setup)
        file = replace(file, knowledge=knowledge, sigmas=sigmas)
    return file


def knowledge_of(told: dict, setup: Setup) -> tuple[Knowledge, tuple[float, ...]]:
    """With the sigmas of its evaluations."""
    steps, places, gains, sigmas = zip(*told["evaluations"], strict=True)
    guided, single = whole(told["guided"]), whole(told["single"])
    fits = set(steps) == set(range(setup.schedule.steps)) and len(guided) == len(single) == len(steps)
    numbers = [*places, *gains, *sigmas, told["runs"], *chain(*guided, *single)]
    sound = all(abs(number) <= LARGEST_NUMBER for number in numbers) and all(isinstance(step, int) for step in steps)
    if not (fits and sound and told["runs"] >= 1 and told["dates"]):
        raise ValueError("lengths differ")
    return Knowledge(Course(steps, places, gains), guided, single, int(told["runs"])), sigmas


def tried_of(row: list, setup: Setup) -> TriedPlan:
    text, kind, psnr = row
    plan = parse(text)
    found = {str(clip): float(db) for clip, db in psnr.items()}
    if plan is None or plan.steps != setup.schedule.steps or not found or not all(abs(db) <= LARGEST_NUMBER for db in found.values()):
        raise ValueError("no such plan")
    return TriedPlan(plan, str(kind), found)

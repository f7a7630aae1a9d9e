/** The pure functions behind the live view. Run by `node --test`: no package, no browser. */

import assert from "node:assert/strict";
import { describe as group, test } from "node:test";

import * as model from "../../web/model.js";

const BLOCKS = 4;

/** One evaluation as docs/events.md lists it. */
function cell(evaluation, fields = {}) {
  return {
    evaluation, step: evaluation, sigma: 0.5, action: "compute", reason: "the plan", error: null, jump: null, judged: null,
    limit: null, change: null, block_changes: [], reused_blocks: [], work_run: 2, work_total: 2, seconds: 1, ...fields,
  };
}

/** An event of the forecast mode: six steps, of which 0, 1, 3 and 5 are computed. */
function event(evaluation, fields = {}) {
  return {
    node_id: "3", run: "a", workflow: "w", model: "WanModel", mode: "forecast", total_steps: 6, threshold: 0.5,
    plan: "0-1 3 5/6", planned: [[0, 1], [3, 3], [5, 5]], plan_note: "automatic", block_count: 0, evaluation,
    evaluations_reused: 0, speedup: null, seconds_saved: null, cache_bytes: 0, notice: "", done: false, ...fields,
  };
}

/** An event of mode paper. */
function blocks(evaluation, fields = {}) {
  return event(evaluation, { mode: "paper", threshold: 0.2, plan: "", planned: [], block_count: BLOCKS, ...fields });
}

function runOf(...events) {
  return events.reduce(model.reduce, null);
}

const reuse = (evaluation, fields) => cell(evaluation, { action: "reuse", work_run: 0, ...fields });
const replay = (evaluation, fields) => reuse(evaluation, { judged: 0.1, limit: 0.2, reused_blocks: [[0, BLOCKS - 1]], ...fields });
const end = (evaluation, fields) => event(evaluation, { done: true, finished: true, history: [], ...fields });

group("reduce", () => {
  test("the plan comes first, then evaluations by their number", () => {
    const begun = runOf(event(null));
    assert.deepEqual([begun.evaluations, begun.plan], [[], "0-1 3 5/6"]);
    const run = model.reduce(begun, event(cell(0), { cache_bytes: 7 }));
    assert.deepEqual([run.evaluations.length, run.cache_bytes], [1, 7]);
  });
  test("an event of another run starts afresh", () => {
    const run = runOf(event(cell(0)), event(cell(1)), event(cell(0), { run: "b" }));
    assert.deepEqual([run.id, run.evaluations.length], ["b", 1]);
  });
  test("an event told twice counts once", () => {
    assert.equal(runOf(event(cell(0)), event(cell(0))).evaluations.length, 1);
  });
  test("the run before is not changed", () => {
    const before = runOf(event(cell(0)));
    model.reduce(before, event(cell(1)));
    assert.equal(before.evaluations.length, 1);
  });
  test("the end fills in what the page was not open for", () => {
    const run = runOf(end(cell(2), { history: [cell(0), reuse(1), cell(2)] }));
    assert.deepEqual(run.evaluations.map(({ action }) => action), ["compute", "reuse", "compute"]);
    assert.equal(run.finished, true);
  });
  test("a run that ended before its first evaluation has none", () => {
    const run = runOf(end(null, { finished: false }));
    assert.deepEqual(run.evaluations, []);
    assert.equal(model.progress(run), "stopped");
    assert.equal(model.headline(run), "0 of 0 steps computed");
  });
});

group("columns", () => {
  test("one for each step, before the first", () => assert.equal(model.columnCount(runOf(event(null))), 6));
  test("two for each step of a sampler that evaluates twice", () => {
    const run = runOf(event(cell(0)), event(cell(1, { step: 0 })), event(cell(2, { step: 1 })));
    assert.equal(model.columnCount(run), 12);
  });
  test("as many as there were once the run is finished", () => {
    assert.equal(model.columnCount(runOf(event(cell(0)), event(cell(1)), end(cell(2)))), 3);
  });
  test("all of them still after a cancel", () => {
    assert.equal(model.columnCount(runOf(event(cell(0)), end(cell(1), { finished: false }))), 6);
  });
});

group("the strip of steps", () => {
  const kinds = (run) => Array.from({ length: model.columnCount(run) }, (_, i) => model.fateOf(run, i));
  test("before the first step it is the plan", () => {
    const fates = kinds(runOf(event(null)));
    assert.deepEqual(fates.map(({ kind }) => kind[0]).join(""), "ccrcrc");
    assert.ok(fates.every(({ ran }) => !ran));
  });
  test("what has run fills in, also where the plan was set aside", () => {
    const fates = kinds(runOf(event(cell(0)), event(cell(1)), event(cell(2)), event(cell(3)), event(reuse(4))));
    assert.deepEqual(fates.map(({ kind }) => kind), ["computed", "computed", "aside", "computed", "reused", "computed"]);
    assert.deepEqual(fates.map(({ ran }) => ran), [true, true, true, true, true, false]);
  });
  test("an evaluation that was reused in part", () => {
    const run = runOf(event(cell(0, { action: "partial" })));
    assert.equal(model.fateOf(run, 0).kind, "partial");
  });
  test("with two evaluations a step the plan counts by steps", () => {
    const run = runOf(event(cell(0)), event(cell(1, { step: 0 })), event(cell(2, { step: 1 })));
    assert.deepEqual(kinds(run).map(({ kind }) => kind[0]).join(""), "ccccrrccrrcc");
  });
});

group("blocks: kinds and shades", () => {
  const partly = cell(1, { action: "partial", reused_blocks: [[0, 1], [3, 3]], judged: 0.1, limit: 0.2 });
  test("blocks in the ranges are reused, others computed", () => {
    assert.deepEqual([0, 1, 2, 3].map((block) => model.kindOf(partly, block)), ["reused", "reused", "computed", "reused"]);
  });
  test("what no number decided was computed by rule", () => assert.equal(model.kindOf(cell(0), 0), "rule"));
  test("a block that changed more is stronger", () => {
    const changed = cell(1, { judged: 0.3, limit: 0.2, change: 0.2, block_changes: [0.1, 0.4, null, 0.2] });
    const run = runOf(blocks(cell(0)), blocks(changed));
    const shades = [0, 1, 2, 3].map((block) => model.shadeOf(run, changed, block, model.mostChange(run)));
    assert.equal(shades[1], 1);
    assert.ok(shades[0] < shades[3] && shades[3] < shades[1]);
    assert.equal(shades[2], shades[3]); // not measured: the step's own change
  });
  test("a first step that changes beyond all measure does not pale the others", () => {
    const run = runOf(blocks(cell(0, { change: 50, block_changes: [50, 50, 50, 50] })), blocks(cell(1, { change: 0.1 })));
    assert.ok(Math.abs(model.mostChange(run) - 0.6) < 1e-12);
  });
  test("a reuse close to its limit is stronger", () => {
    const [near, far] = [replay(1, { judged: 0.19 }), replay(2, { judged: 0.02 })];
    const run = runOf(blocks(near), blocks(far));
    assert.ok(model.shadeOf(run, near, 0, 1) > model.shadeOf(run, far, 0, 1));
  });
  test("shades stay within 0 and 1, with and without measurements", () => {
    for (const fields of [{}, { change: 9, block_changes: [9, 0, null, 0.1] }, { action: "reuse", judged: 5, limit: 0.1 }]) {
      const run = runOf(blocks(cell(0, fields)));
      for (let block = 0; block < BLOCKS; block++) {
        const shade = model.shadeOf(run, run.evaluations[0], block, model.mostChange(run));
        assert.ok(shade >= 0 && shade <= 1, `${shade}`);
      }
    }
  });
});

group("curve", () => {
  test("the threshold is on the scale, and what is far beyond is cut off", () => {
    const run = runOf(event(cell(0)), event(cell(1, { error: 5 })), event(cell(2, { error: 0.2 })));
    assert.equal(model.curveTop(run), 1.5);
    const points = model.curvePoints(run);
    assert.deepEqual(points.map(({ column }) => column), [1, 2]);
    assert.deepEqual(points.map(({ over }) => over), [true, false]);
    assert.ok(Math.abs(model.limitShare(run) - 1 / 3) < 1e-12);
  });
  test("small errors fill the scale, and the threshold is off it", () => {
    const run = runOf(event(cell(0, { error: 0.02 })), event(cell(1, { error: 0.04 })));
    assert.equal(model.curveTop(run), 0.05);
    assert.equal(model.limitShare(run), null);
  });
  test("points say what became of the step", () => {
    const run = runOf(event(cell(1, { error: 0.1 })), event(cell(2, { error: 0.7 })));
    assert.deepEqual(model.curvePoints(run).map(({ kind }) => kind), ["computed", "aside"]);
  });
  test("block modes show the change", () => {
    assert.equal(model.valueOf(runOf(blocks(null)), cell(0, { change: 0.3, error: 0.9 })), 0.3);
    assert.equal(model.valueOf(runOf(event(null)), cell(0, { change: 0.3, error: 0.9 })), 0.9);
  });
  test("threshold 0 has no line, and a scale all the same", () => {
    const run = runOf(event(cell(0), { threshold: 0 }));
    assert.equal(model.limitShare(run), null);
    assert.ok(model.curveTop(run) > 0);
  });
});

group("text", () => {
  test("before, during and after a run", () => {
    assert.equal(model.headline(null), "No run yet");
    assert.equal(model.headline(runOf(event(null))), "Plan: 4 of 6 steps computed");
    assert.equal(model.headline(runOf(blocks(null))), "Sampling begins");
    assert.equal(model.headline(runOf(event(cell(0)), event(cell(1)), event(reuse(2)))), "2 computed, 1 reused");
    const done = end(cell(2), { history: [cell(0), reuse(1), cell(2)], speedup: 1.94 });
    assert.equal(model.headline(runOf(done)), "2 of 3 steps computed, about 1.9x");
  });
  test("without a speed there is none", () => {
    assert.equal(model.headline(runOf(event(cell(0)), end(cell(1)))), "2 of 2 steps computed");
  });
  test("evaluations where a step has several", () => {
    const history = [0, 1, 2].map((i) => cell(i, { step: 0 }));
    assert.equal(model.headline(runOf(end(history[2], { history, total_steps: 1 }))), "3 of 3 evaluations computed");
  });
  test("block modes tell the memory, and per block counts blocks", () => {
    const paper = blocks(cell(0), { done: true, finished: true, cache_bytes: 335462400 });
    assert.equal(model.limits(runOf(paper)), "threshold 0.2, 320 MiB");
    assert.equal(model.limits(runOf(event(cell(0)))), "threshold 0.5");
    const partly = cell(1, { action: "partial", work_run: 1 });
    const done = { mode: "per block", done: true, finished: true, history: [cell(0), partly] };
    assert.match(model.headline(runOf(blocks(partly, done))), /^25 % of blocks reused/);
  });
  test("the legend names what occurs", () => {
    const names = (...events) => model.legend(events.length ? runOf(...events) : null).map(([, name]) => name);
    assert.deepEqual(names(), ["computed", "reused"]);
    assert.deepEqual(names(event(cell(0)), event(cell(2))), ["computed", "reused", "against the plan"]);
    assert.deepEqual(names(blocks(null)), ["computed", "by rule", "reused"]);
  });
  test("times are told at the end, and what was saved where it is worth telling", () => {
    const told = (seconds_saved) => model.times(runOf(event(cell(0)), end(cell(1), { finished: true, seconds_saved })));
    assert.deepEqual([told(2.2), told(0.01), told(null)], ["2.0 s, about 2.2 s saved", "2.0 s", "2.0 s"]);
    const cancelled = runOf(event(cell(0)), end(cell(1), { finished: false, seconds_saved: null }));
    assert.deepEqual([null, runOf(event(cell(0))), cancelled].map(model.times), ["", "", ""]);
  });
  test("progress", () => {
    assert.equal(model.progress(null), "");
    assert.equal(model.progress(runOf(event(null))), "0/6");
    assert.equal(model.progress(runOf(event(cell(1)))), "2/6");
    const over = (finished) => end(cell(2), { finished });
    assert.equal(model.progress(runOf(event(cell(0)), event(cell(1)), over(true))), "");
    assert.equal(model.progress(runOf(event(cell(0)), event(cell(1)), over(false))), "stopped at 3/6");
  });
  test("pointing at a step: what will be, and what was", () => {
    const run = runOf(event(cell(0)), event(cell(1, { error: 0.123456 })), event(cell(2, { reason: "why" })), event(cell(3)));
    assert.equal(model.describe(run, 1, 0), "step 1: computed, the plan, error 0.123, sigma 0.5, 1.0 s");
    assert.equal(model.describe(run, 2, null), "step 2: computed against the plan, why, sigma 0.5, 1.0 s");
    const both = cell(1, { error: 0.2, parts: { picture: 0.05, sound: 0.2 } });
    const told = "step 1: computed, the plan, error 0.2 (picture 0.05, sound 0.2), sigma 0.5, 1.0 s";
    assert.equal(model.describe(runOf(event(cell(0)), event(both)), 1, 0), told);
    assert.equal(model.describe(run, 4, 0), "step 4: will be reused");
    assert.equal(model.describe(runOf(end(cell(0), { finished: false })), 4, 0), "");
  });
  test("pointing at a block and at the curve", () => {
    const changed = cell(1, { change: 0.1, block_changes: [0, 0.123456, 0, 0], reason: "why" });
    const run = runOf(blocks(cell(0)), blocks(changed), blocks(replay(2, { reason: "why" })));
    assert.equal(model.describe(run, 1, 1), "step 1, block 1: computed (changed 0.123), why, 1.0 s");
    assert.equal(model.describe(run, 2, null), "step 2: reused, why, 1.0 s");
    assert.equal(model.describe(run, 5, 0), "");
  });
  for (const [count, text] of [[0, "0 B"], [999, "999 B"], [1024, "1.0 KiB"], [335462400, "320 MiB"], [2.5e9, "2.3 GiB"], [7e13, "65193 GiB"]]) {
    test(`${count} bytes are ${text}`, () => assert.equal(model.bytes(count), text));
  }
  for (const [value, text] of [[0.005, "0.01 s"], [1.24, "1.2 s"], [9.96, "10 s"], [59.6, "1:00 min"], [185, "3:05 min"], [null, "-"], [NaN, "-"]]) {
    test(`${value} seconds are ${text}`, () => assert.equal(model.seconds(value), text));
  }
  test("numbers that are none are a dash", () => {
    assert.deepEqual([0.05, 0.0123456, 0, null, Infinity].map(model.number), ["0.05", "0.0123", "0", "-", "-"]);
  });
});

group("layout", () => {
  for (const [width, height, columns, rows] of [[320, 130, 30, 40], [320, 130, 30, 1], [320, 130, 1, 1], [600, 300, 100, 60], [50, 40, 200, 80]]) {
    test(`${columns} x ${rows} cells fit ${width} x ${height}`, () => {
      const at = model.layout(width, height, columns, rows);
      assert.ok(Math.abs(at.left + columns * at.step - at.right) < 1e-9 && at.right <= Math.max(width, at.left + 1));
      assert.ok(at.step > at.gapX && at.rise > at.gapY);
      assert.ok(at.map.top + at.map.height <= at.curve.top && at.curve.top + at.curve.height <= at.axisY);
    });
  }
  test("a point finds its cell: block 0 at the bottom", () => {
    const at = model.layout(340, 130, 30, 10);
    assert.deepEqual(model.hit(at, at.left + 0.5 * at.step, at.map.height - 1), { column: 0, block: 0 });
    assert.deepEqual(model.hit(at, at.right - 1, 1), { column: 29, block: 9 });
    assert.deepEqual(model.hit(at, at.right - 1, at.curve.top + 2), { column: 29, block: null });
    assert.equal(model.hit(at, at.left - 1, 5), null);
    assert.equal(model.hit(at, at.right + 1, 5), null);
  });
  for (const [total, steps] of [[1, [0]], [4, [0, 1, 2, 3]], [30, [0, 5, 10, 15, 20, 25, 29]], [50, [0, 10, 20, 30, 40, 49]], [51, [0, 10, 20, 30, 40, 50]]]) {
    test(`ticks of ${total} steps`, () => assert.deepEqual(model.ticks(total), steps));
  }
  test("labels are never more than the axis holds", () => {
    for (let total = 1; total < 2500; total++) {
      const shown = model.ticks(total);
      assert.ok(shown.length <= 8 && new Set(shown).size === shown.length, `${total}: ${shown}`);
    }
  });
});

group("colours", () => {
  test("mix runs from one to the other", () => {
    const ramp = [[0, 100, 200], [100, 200, 0]];
    assert.deepEqual([-1, 0, 0.5, 1, 2].map((share) => model.mix(ramp, share)), [
      "rgb(0, 100, 200)", "rgb(0, 100, 200)", "rgb(50, 150, 100)", "rgb(100, 200, 0)", "rgb(100, 200, 0)",
    ]);
  });
  test("ComfyUI's dark and light panels are told apart", () => {
    assert.equal(model.isLight("rgb(23, 23, 24)"), false);
    assert.equal(model.isLight("rgb(7, 54, 66)"), false); // solarized
    assert.equal(model.isLight("rgb(255, 255, 255)"), true);
  });
});

group("findNode", () => {
  const inner = { getNodeById: (id) => (id === 7 ? { id: 7 } : null) };
  const outer = { getNodeById: (id) => ({ 3: { id: 3 }, 12: { id: 12, subgraph: inner } })[id] };
  test("in the root graph", () => assert.equal(model.findNode(outer, "3").id, 3));
  test("in a subgraph", () => assert.equal(model.findNode(outer, "12:7").id, 7));
  for (const id of ["4", "12:8", "3:7", "12:7:1", "", "x"]) {
    test(`"${id}" is gone`, () => assert.equal(model.findNode(outer, id), null));
  }
  test("without a graph", () => assert.equal(model.findNode(undefined, "3"), null));
});

group("nodesOf", () => {
  const inner = { nodes: [{ id: 7, mode: 0 }, { id: 8, mode: 4 }] };
  const graph = (mode) => ({ nodes: [{ id: 3, mode: 2 }, { id: 12, mode, subgraph: inner }, { id: 13, mode: 0 }] });
  const ids = (...given) => model.nodesOf(...given).map(({ id }) => id);
  test("all", () => assert.deepEqual(ids(graph(0), true), [3, 12, 7, 8, 13]));
  test("those that a prompt runs", () => assert.deepEqual(ids(graph(0), false), [12, 7, 13]));
  test("none in a subgraph that is bypassed or muted", () => {
    for (const mode of [2, 4]) assert.deepEqual(ids(graph(mode), false), [13]);
  });
  test("none without a graph", () => assert.deepEqual(ids(undefined, true), []));
});

group("plans that were measured", () => {
  test("are named before the first step", () => {
    assert.equal(model.headline(runOf(event(null))), "Plan: 4 of 6 steps computed");
    assert.equal(model.headline(runOf(event(null, { plan_note: "measured on 2 runs" }))), "Measured plan: 4 of 6 steps computed");
    assert.equal(model.headline(runOf(event(null, { plan_note: "automatic: measured on 2 runs" }))), "Plan: 4 of 6 steps computed");
  });

  test("say of a step what it is, its sigma, and the error of its forecast", () => {
    const plans = { sigmas: [1, 0.8123, 0.5] };
    const planned = { name: "measured", computed: [[0, 0], [2, 2]], errors: [null, 0.12345, null] };
    assert.equal(model.describePlanned(plans, planned, 1), "measured, step 1: reused, expected error 0.123, sigma 0.812");
    assert.equal(model.describePlanned(plans, planned, 2), "measured, step 2: computed, sigma 0.5");
    const ran = { name: "ran", computed: [[0, 2]], errors: [null, null, 0.02] };
    assert.equal(model.describePlanned(plans, ran, 2), "ran, step 2: computed, error 0.02, sigma 0.5");
  });

  test("cost what calibration.py says", () => {
    assert.equal(model.calibrationCost({ seeds: 2, trials: 2, speedups: "2 4" }), 7.5);
    assert.equal(model.calibrationCost({ seeds: 1, trials: 4, speedups: "2x, 2" }), 1 + 3 + 5);
    assert.equal(model.calibrationCost({ seeds: 2, trials: 1, speedups: "2.5,4" }), 2 + 1 + 1.6 + 1);
    assert.equal(model.calibrationCost({ seeds: 2, trials: 1, speedups: "2,5 4" }), 2 + 1 + 1.6 + 1);
    for (const speedups of ["", "fast", "1 2", "11", "2 x", "2,5", "1.5 2,5"]) assert.equal(model.calibrationCost({ seeds: 2, trials: 2, speedups }), null);
  });
});

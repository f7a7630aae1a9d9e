/** The pure functions behind the live view. Run by `node --test`: no package, no browser. */

import assert from "node:assert/strict";
import { describe as group, test } from "node:test";

import * as model from "../../web/model.js";

const BLOCKS = 4;

/** An event as README.md lists it. */
function event(evaluation, fields = {}) {
  const reuses = fields.action === "reuse";
  return {
    node_id: "3", run: "a", workflow: "w", model: "WanModel", mode: "paper", total_steps: 6, block_count: BLOCKS,
    threshold: 0.2, evaluation, step: evaluation, action: "compute", reason: "why", change: null, forecast_error: null,
    judged: null, limit: null, blocks_reused: reuses ? BLOCKS : 0, blocks_total: BLOCKS,
    reused: reuses ? [[0, BLOCKS - 1]] : [], block_changes: [], seconds: 1, evaluations_reused: 0, speedup: null,
    cache_bytes: 0, warnings: [], errors: [], done: false, ...fields,
  };
}

function runOf(...events) {
  return events.reduce(model.reduce, null);
}

const reuse = (evaluation, fields) => event(evaluation, { action: "reuse", judged: 0.1, limit: 0.2, ...fields });

group("reduce", () => {
  test("collects evaluations by their number and keeps the newest of the run's own fields", () => {
    const run = runOf(event(1), reuse(2, { evaluations_reused: 1, cache_bytes: 7 }));
    assert.deepEqual(run.evaluations.map((cell) => cell.action), ["compute", "reuse"]);
    assert.equal(run.evaluations_reused, 1);
    assert.equal(run.cache_bytes, 7);
  });
  test("an event of another run starts afresh", () => {
    const run = runOf(event(1), event(2), event(1, { run: "b" }));
    assert.equal(run.id, "b");
    assert.equal(run.evaluations.length, 1);
  });
  test("an event told twice counts once", () => {
    assert.equal(runOf(event(1), event(1)).evaluations.length, 1);
  });
  test("the run before is not changed", () => {
    const before = runOf(event(1));
    model.reduce(before, event(2));
    assert.equal(before.evaluations.length, 1);
  });
  test("the end fills in what the page was not open for", () => {
    const history = [event(1), reuse(2), event(3)];
    const run = runOf(event(3, { done: true, finished: true, history, summary: "s" }));
    assert.deepEqual(run.evaluations.map((cell) => cell.action), ["compute", "reuse", "compute"]);
    assert.equal(run.finished, true);
  });
  test("a run that ended before its first evaluation has none", () => {
    const run = runOf(event(0, { step: 0, done: true, finished: false, history: [] }));
    assert.deepEqual(run.evaluations, []);
    assert.equal(model.progress(run), "stopped");
    assert.equal(model.headline(run), "0 of 0 steps reused, 0 B");
  });
});

group("columns", () => {
  test("one for each step", () => assert.equal(model.columnCount(runOf(event(1))), 6));
  test("two for each step of a sampler that evaluates twice", () => {
    const run = runOf(event(1, { step: 1 }), event(2, { step: 1 }), event(3, { step: 2 }));
    assert.equal(model.columnCount(run), 12);
  });
  test("as many as there were once the run is finished", () => {
    const run = runOf(event(1), event(2), event(3, { done: true, finished: true, history: [] }));
    assert.equal(model.columnCount(run), 3);
  });
  test("all of them still after a cancel", () => {
    assert.equal(model.columnCount(runOf(event(1), event(2, { done: true, finished: false, history: [] }))), 6);
  });
});

group("kinds and shades", () => {
  const partly = event(2, { action: "partial", reused: [[0, 1], [3, 3]], judged: 0.1, limit: 0.2 });
  test("blocks in the ranges are reused, others computed", () => {
    const kinds = [0, 1, 2, 3].map((block) => model.kindOf(partly, block));
    assert.deepEqual(kinds, ["reused", "reused", "computed", "reused"]);
  });
  test("what no number decided was computed by rule", () => assert.equal(model.kindOf(event(1), 0), "rule"));
  test("a block that changed more is stronger", () => {
    const cell = event(2, { judged: 0.3, limit: 0.2, change: 0.2, block_changes: [0.1, 0.4, null, 0.2] });
    const run = runOf(event(1), cell);
    const shades = [0, 1, 2, 3].map((block) => model.shadeOf(run, cell, block, model.mostChange(run)));
    assert.equal(shades[1], 1);
    assert.ok(shades[0] < shades[3] && shades[3] < shades[1]);
    assert.equal(shades[2], shades[3]); // not measured: the step's own change
  });
  test("a first step that changes beyond all measure does not pale the others", () => {
    const run = runOf(event(1, { change: 50, block_changes: [50, 50, 50, 50] }), event(2, { change: 0.1 }));
    assert.ok(Math.abs(model.mostChange(run) - 0.6) < 1e-12);
  });
  test("a reuse close to its limit is stronger", () => {
    const [near, far] = [reuse(2, { judged: 0.19 }), reuse(3, { judged: 0.02 })];
    const run = runOf(near, far);
    assert.ok(model.shadeOf(run, near, 0, 1) > model.shadeOf(run, far, 0, 1));
  });
  test("shades stay within 0 and 1, with and without measurements", () => {
    for (const fields of [{}, { change: 9, block_changes: [9, 0, null, 0.1] }, { action: "reuse", judged: 5, limit: 0.1 }]) {
      const run = runOf(event(1, fields));
      for (let block = 0; block < BLOCKS; block++) {
        const shade = model.shadeOf(run, run.evaluations[0], block, model.mostChange(run));
        assert.ok(shade >= 0 && shade <= 1, `${shade}`);
      }
    }
  });
});

group("curve", () => {
  test("the limit is on the scale, and what is far beyond is cut off", () => {
    const run = runOf(event(1), event(2, { change: 5, judged: 5, limit: 0.2 }), event(3, { change: 0.1 }));
    assert.ok(Math.abs(model.curveTop(run) - 0.6) < 1e-12);
    const points = model.curvePoints(run);
    assert.deepEqual(points.map((point) => point.column), [1, 2]);
    assert.deepEqual(points.map((point) => point.over), [true, false]);
  });
  test("adaptive shows the error that decided, and the measured one where a rule did", () => {
    const adaptive = { mode: "adaptive" };
    const cell = reuse(2, { ...adaptive, judged: 0.04, forecast_error: 0.9 });
    assert.equal(model.valueOf(cell, "adaptive"), 0.04);
    assert.equal(model.valueOf(event(2, { ...adaptive, forecast_error: 0.03, change: 0.5 }), "adaptive"), 0.03);
    assert.equal(model.valueOf(event(1, adaptive), "adaptive"), null);
  });
  test("a tolerance that a run adjusts is a line with steps", () => {
    const run = runOf(event(1), event(2, { judged: 0.1, limit: 0.3 }), event(3, { judged: 0.1, limit: 0.15 }));
    const line = model.limitLine(run, 6);
    assert.equal(line.length, 6);
    assert.equal(line[0], line[1]);
    assert.ok(line[2] < line[1]);
    assert.equal(line[5], line[2]);
  });
  test("threshold 0 has no line, and a scale all the same", () => {
    const run = runOf(event(1, { threshold: 0 }));
    assert.deepEqual(model.limitLine(run, 6), []);
    assert.ok(model.curveTop(run) > 0);
  });
});

group("text", () => {
  test("the line of the issue", () => {
    const cells = Array.from({ length: 30 }, (_, i) => event(i + 1, { total_steps: 30 }));
    const end = event(30, {
      total_steps: 30, evaluations_reused: 14, speedup: 1.9, cache_bytes: 335462400, done: true, finished: true, history: [],
    });
    assert.equal(model.headline(runOf(...cells, end)), "14 of 30 steps reused, 1.9x, 335 MB");
  });
  test("without a measured speed-up, and before any run", () => {
    assert.equal(model.headline(runOf(event(1))), "0 of 6 steps reused, 0 B");
    assert.equal(model.headline(null), "No run yet");
  });
  test("evaluations where a step has several", () => {
    const run = runOf(event(1, { step: 1 }), event(2, { step: 1 }), event(3, { step: 2 }));
    assert.match(model.headline(run), /^0 of 12 evaluations reused/);
  });
  test("per block counts blocks", () => {
    const run = runOf(event(1, { mode: "per block" }), event(2, { mode: "per block", action: "partial", blocks_reused: 2 }));
    assert.match(model.headline(run), /^25 % of blocks reused/);
  });
  test("progress", () => {
    assert.equal(model.progress(null), "");
    assert.equal(model.progress(runOf(event(2))), "3/6");
    assert.equal(model.progress(runOf(event(6))), "6/6");
    const end = (finished) => event(3, { done: true, finished, history: [] });
    assert.equal(model.progress(runOf(event(1), event(2), end(true))), "3.0 s");
    assert.equal(model.progress(runOf(event(1), event(2), end(false))), "stopped at 3/6");
  });
  test("pointing at a block and at the curve", () => {
    const run = runOf(event(1), event(2, { change: 0.1, block_changes: [0.123456, 0, 0, 0] }), reuse(3));
    assert.equal(model.describe(run, 1, 0), "step 2, block 1: computed (changed 0.123), why, 1.0 s");
    assert.equal(model.describe(run, 2, null), "step 3: reused, why, 1.0 s");
    assert.equal(model.describe(run, 5, 0), "");
  });
  test("the notice is an error, else a warning, else why nothing was reused", () => {
    const end = { done: true, finished: true, history: [], summary: "BWCache\nNothing was reused: threshold is 0." };
    assert.equal(model.notice(runOf(event(1, end))), "Nothing was reused: threshold is 0.");
    assert.equal(model.notice(runOf(event(1, { ...end, warnings: ["w"] }))), "w");
    assert.equal(model.notice(runOf(event(1, { ...end, warnings: ["w"], errors: ["e"] }))), "e");
    assert.equal(model.notice(null), "");
  });
  for (const [count, text] of [[0, "0 B"], [999, "999 B"], [1000, "1.0 kB"], [335462400, "335 MB"], [2.5e9, "2.5 GB"], [7e13, "70000 GB"]]) {
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
  for (const [width, height, columns, rows] of [[320, 130, 30, 40], [320, 130, 1, 1], [600, 300, 100, 60], [50, 40, 200, 80]]) {
    test(`${columns} x ${rows} cells fit ${width} x ${height}`, () => {
      const at = model.layout(width, height, columns, rows);
      assert.ok(Math.abs(at.left + columns * at.step - at.right) < 1e-9 && at.right <= Math.max(width, at.left + 1));
      assert.ok(at.step > at.gapX && at.rise > at.gapY);
      assert.ok(at.map.top + at.map.height <= at.curve.top && at.curve.top + at.curve.height <= at.axisY);
    });
  }
  test("a point finds its cell: block 1 at the bottom", () => {
    const at = model.layout(340, 130, 30, 10);
    assert.deepEqual(model.hit(at, at.left + 0.5 * at.step, at.map.height - 1), { column: 0, block: 0 });
    assert.deepEqual(model.hit(at, at.right - 1, 1), { column: 29, block: 9 });
    assert.deepEqual(model.hit(at, at.right - 1, at.curve.top + 2), { column: 29, block: null });
    assert.equal(model.hit(at, at.left - 1, 5), null);
    assert.equal(model.hit(at, at.right + 1, 5), null);
  });
  for (const [total, steps] of [[1, [1]], [4, [1, 2, 3, 4]], [30, [1, 5, 10, 15, 20, 25, 30]], [50, [1, 10, 20, 30, 40, 50]], [59, [1, 10, 20, 30, 40, 50, 59]]]) {
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

/**
 * What the live view shows, as pure functions on plain data: no DOM, no ComfyUI, nothing remembered.
 * Events are `bwcache.step` as listed in README.md. Evaluations, steps and blocks count from 1 in what people read.
 */

/**
 * @typedef {object} Evaluation part of an event, from `evaluation` to `seconds`
 * @typedef {object} Run everything known of one sampling run
 * @property {string} id
 * @property {Evaluation[]} evaluations by index; holes where the page was not open
 */

const CELL_FIELDS = [
  "evaluation", "step", "action", "reason", "change", "forecast_error", "judged", "limit", "blocks_reused",
  "blocks_total", "reused", "block_changes", "seconds",
];
const RUN_FIELDS = [
  "node_id", "workflow", "model", "mode", "total_steps", "block_count", "threshold", "evaluations_reused", "speedup",
  "cache_bytes", "warnings", "errors", "done",
];

/**
 * The run after an event. An event of another run starts afresh.
 * @param {Run|null} run
 * @param {object} event
 * @returns {Run}
 */
export function reduce(run, event) {
  const known = run && run.id === event.run ? run.evaluations : [];
  const evaluations = [...known];
  for (const cell of [...(event.history ?? []), pick(event, CELL_FIELDS)]) {
    if (cell.evaluation > 0) evaluations[cell.evaluation - 1] = cell;
  }
  return {
    ...pick(event, RUN_FIELDS),
    id: event.run,
    evaluations,
    finished: event.finished ?? null,
    summary: event.summary ?? "",
  };
}

function pick(object, names) {
  return Object.fromEntries(names.map((name) => [name, object[name]]));
}

/**
 * Columns of the map: evaluations expected in all, once it shows how many a step takes.
 * @param {Run} run
 * @returns {number}
 */
export function columnCount(run) {
  const seen = run.evaluations.length;
  if (run.done && run.finished) return Math.max(seen, 1);
  const step = run.evaluations.at(-1)?.step ?? 0;
  const perStep = step > 1 ? Math.max(1, Math.round((seen - 1) / (step - 1))) : 1;
  return Math.max(seen, run.total_steps * perStep, 1);
}

/**
 * Whether a block ran in an evaluation. "rule": it ran whatever was measured (warm-up, tail, window, interval).
 * @param {Evaluation} cell
 * @param {number} block from 0
 * @returns {"reused"|"computed"|"rule"}
 */
export function kindOf(cell, block) {
  if (cell.reused.some(([first, last]) => first <= block && block <= last)) return "reused";
  return cell.judged === null ? "rule" : "computed";
}

/**
 * The number an evaluation is drawn at: what was held against the limit, or measured where a rule decided.
 * @param {Evaluation} cell
 * @param {string} mode
 * @returns {number|null}
 */
export function valueOf(cell, mode) {
  if (mode === "adaptive") return cell.judged ?? cell.forecast_error ?? null;
  return cell.change ?? null;
}

/**
 * Shade of a block, 0 (pale) to 1 (strong): how much it changed, against the most that was seen in the run.
 * @param {Run} run
 * @param {Evaluation} cell
 * @param {number} block from 0
 * @param {number} most from mostChange()
 * @returns {number}
 */
export function shadeOf(run, cell, block, most) {
  if (kindOf(cell, block) === "reused") {
    const share = cell.limit > 0 ? (cell.judged ?? 0) / cell.limit : 0;
    return clamp(share, 0, 1);
  }
  const value = cell.block_changes[block] ?? valueOf(cell, run.mode);
  if (value === null || value === undefined || !(most > 0)) return 0.35;
  return Math.sqrt(clamp(value / most, 0, 1));
}

/**
 * The largest change in the run, the full shade. Three times the limit is enough: first steps change beyond all measure.
 * @param {Run} run
 * @returns {number}
 */
export function mostChange(run) {
  const values = present(run).flatMap((cell) => [...cell.block_changes, valueOf(cell, run.mode)]);
  const most = Math.max(0, ...values.filter(Number.isFinite));
  return run.threshold > 0 ? Math.min(most, 3 * run.threshold) : most;
}

/**
 * Upper end of the curve's scale: the limit stays visible, and what lies far above it is cut off.
 * @param {Run} run
 * @returns {number}
 */
export function curveTop(run) {
  const cells = present(run);
  const values = cells.map((cell) => valueOf(cell, run.mode)).filter(Number.isFinite);
  const most = Math.max(0, ...values);
  const limit = Math.max(run.threshold, ...cells.map((cell) => cell.limit ?? 0));
  if (!(limit > 0)) return most * 1.15 || 1;
  return clamp(most * 1.15, 1.5 * limit, 3 * limit);
}

/**
 * Points of the curve. `over`: beyond the scale, drawn at its upper end.
 * @param {Run} run
 * @returns {{column: number, share: number, over: boolean, reused: boolean, rule: boolean}[]}
 */
export function curvePoints(run) {
  const top = curveTop(run);
  return present(run).flatMap((cell) => {
    const value = valueOf(cell, run.mode);
    if (value === null) return [];
    return [{
      column: cell.evaluation - 1,
      share: clamp(value / top, 0, 1),
      over: value > top,
      reused: cell.action !== "compute",
      rule: cell.judged === null,
    }];
  });
}

/**
 * The limit by column as shares of the scale: a level line, or steps where the run adjusts its tolerance.
 * @param {Run} run
 * @param {number} columns
 * @returns {number[]} empty where there is no limit
 */
export function limitLine(run, columns) {
  const top = curveTop(run);
  let limit = present(run).find((cell) => cell.limit !== null)?.limit ?? run.threshold;
  if (!(limit > 0)) return [];
  return Array.from({ length: columns }, (_, column) => {
    limit = run.evaluations[column]?.limit ?? limit;
    return clamp(limit / top, 0, 1);
  });
}

/** @param {Run} run evaluations that were seen */
export function present(run) {
  return run.evaluations.filter(Boolean);
}

/**
 * "14 of 30 steps reused, 1.9x, 335 MB"
 * @param {Run|null} run
 * @returns {string}
 */
export function headline(run) {
  if (!run) return "No run yet";
  const evaluations = run.evaluations.length;
  const perStep = columnCount(run) > run.total_steps;
  const total = run.done ? evaluations : columnCount(run);
  const parts = [`${run.evaluations_reused} of ${total} ${perStep ? "evaluations" : "steps"} reused`];
  if (run.mode === "per block") parts[0] = `${percentReused(run)} % of blocks reused`;
  if (Number.isFinite(run.speedup)) parts.push(`${run.speedup.toFixed(1)}x`);
  parts.push(bytes(run.cache_bytes));
  return parts.join(", ");
}

function percentReused(run) {
  const sum = (name) => present(run).reduce((total, cell) => total + cell[name], 0);
  return Math.round((100 * sum("blocks_reused")) / Math.max(sum("blocks_total"), 1));
}

/**
 * Where the run is: "17/30", "9.2 s", "stopped at 9/30".
 * @param {Run|null} run
 * @returns {string}
 */
export function progress(run) {
  if (!run) return "";
  const step = run.evaluations.at(-1)?.step ?? 0;
  if (!run.done) return `${Math.min(step + 1, run.total_steps)}/${run.total_steps}`;
  if (run.finished) return seconds(sumOfSeconds(run));
  return step ? `stopped at ${step}/${run.total_steps}` : "stopped";
}

function sumOfSeconds(run) {
  return present(run).reduce((total, cell) => total + (cell.seconds ?? 0), 0);
}

/**
 * @param {Run} run
 * @returns {{value: string, limit: string}} what the curve shows, and what it is held against
 */
export function names(run) {
  return run.mode === "adaptive" ? { value: "error", limit: "tolerance" } : { value: "change", limit: "threshold" };
}

/**
 * What a person reads of one evaluation when pointing at it.
 * @param {Run} run
 * @param {number} column from 0
 * @param {number|null} block from 0; null when pointing at the curve
 * @returns {string}
 */
export function describe(run, column, block) {
  const cell = run.evaluations[column];
  if (!cell) return "";
  const change = block === null ? undefined : cell.block_changes[block];
  const kind = block === null ? cell.action : kindOf(cell, block);
  const done = kind === "reused" || kind === "reuse" ? "reused" : kind === "partial" ? "partly reused" : "computed";
  const place = block === null ? `step ${cell.step}` : `step ${cell.step}, block ${block + 1}`;
  const measured = Number.isFinite(change) ? ` (changed ${number(change)})` : "";
  return `${place}: ${done}${measured}, ${cell.reason}, ${seconds(cell.seconds)}`;
}

/**
 * The one thing worth saying below the map: an error, a warning, or why nothing was reused.
 * @param {Run|null} run
 * @returns {string} empty when there is nothing to say
 */
export function notice(run) {
  if (!run) return "";
  const why = run.summary.split("\n").find((line) => line.startsWith("Nothing was reused"));
  return run.errors.at(-1) ?? run.warnings[0] ?? why ?? "";
}

/**
 * @param {number} count
 * @returns {string} "335 MB": decimal units
 */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  const power = count > 0 ? Math.min(Math.floor(Math.log10(count) / 3), 3) : 0;
  const value = count / 1000 ** power;
  return `${value < 9.95 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/**
 * @param {number|null} value
 * @returns {string} "0.0123"; a dash for what is no number
 */
export function number(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "-";
}

/**
 * @param {number|null} value
 * @returns {string} "0.31 s", "42 s", "3:05 min"
 */
export function seconds(value) {
  if (!Number.isFinite(value)) return "-";
  if (value < 9.95) return `${value < 0.995 ? value.toFixed(2) : value.toFixed(1)} s`;
  if (value < 59.5) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

/**
 * Where things are on the canvas, in CSS pixels. Block 1 is at the bottom.
 * @param {number} width
 * @param {number} height
 * @param {number} columns
 * @param {number} rows
 */
export function layout(width, height, columns, rows) {
  const left = 40;
  const axis = 13;
  const between = 9;
  const body = Math.max(height - axis - between, 20);
  const mapHeight = Math.round(body * 0.62);
  const plotWidth = Math.max(width - left, 1);
  const step = plotWidth / columns;
  const rise = mapHeight / rows;
  return {
    left,
    step,
    rise,
    columns,
    rows,
    right: left + plotWidth,
    map: { top: 0, height: mapHeight },
    curve: { top: mapHeight + between, height: body - mapHeight },
    axisY: height - 2,
    gapX: step >= 5 ? 1.25 : step >= 3 ? 0.5 : 0,
    gapY: rise >= 4 ? 1 : 0,
  };
}

/**
 * The evaluation and block at a point of the canvas.
 * @param {ReturnType<typeof layout>} at
 * @param {number} x
 * @param {number} y
 * @returns {{column: number, block: number|null}|null} null outside
 */
export function hit(at, x, y) {
  const column = Math.floor((x - at.left) / at.step);
  if (column < 0 || column >= at.columns) return null;
  const row = Math.floor((y - at.map.top) / at.rise);
  return { column, block: row >= 0 && row < at.rows ? at.rows - 1 - row : null };
}

/**
 * Labels of the step axis: about `most` round numbers, the first step and the last.
 * @param {number} total
 * @param {number} most
 * @returns {number[]}
 */
export function ticks(total, most = 6) {
  const stride = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => total / size <= most) ?? total;
  const inner = Array.from({ length: Math.floor(total / stride) }, (_, i) => (i + 1) * stride);
  const clear = inner.filter((step) => step - 1 >= stride / 2 && total - step >= stride / 2);
  return total > 1 ? [1, ...clear, total] : [1];
}

export const DARK = {
  empty: "rgba(255, 255, 255, 0.055)",
  computed: [[35, 66, 105], [94, 168, 255]],
  rule: [[52, 60, 72], [121, 134, 152]],
  reused: [[255, 209, 92], [247, 138, 44]],
  line: "rgba(255, 255, 255, 0.34)",
  limit: "rgba(255, 255, 255, 0.75)",
  text: "rgba(255, 255, 255, 0.55)",
  band: "rgba(255, 190, 80, 0.13)",
};
export const LIGHT = {
  empty: "rgba(0, 0, 0, 0.05)",
  computed: [[176, 205, 240], [24, 92, 178]],
  rule: [[214, 219, 227], [130, 141, 157]],
  reused: [[255, 198, 66], [233, 122, 12]],
  line: "rgba(0, 0, 0, 0.34)",
  limit: "rgba(0, 0, 0, 0.7)",
  text: "rgba(0, 0, 0, 0.6)",
  band: "rgba(255, 170, 30, 0.16)",
};

/**
 * @param {number[][]} ramp two colours
 * @param {number} share 0 to 1
 * @returns {string} CSS colour between them
 */
export function mix(ramp, share) {
  const parts = ramp[0].map((low, i) => Math.round(low + (ramp[1][i] - low) * clamp(share, 0, 1)));
  return `rgb(${parts.join(", ")})`;
}

/**
 * @param {string} colour as CSS computes it: "rgb(23, 23, 24)"
 * @returns {boolean} whether dark text belongs on it
 */
export function isLight(colour) {
  const [red, green, blue] = (colour.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

/**
 * The node that an event is about.
 * @param {object} graph the root graph, or anything with getNodeById
 * @param {string} id "7", or "12:7" for node 7 in subgraph node 12
 * @returns {object|null} null if it is gone
 */
export function findNode(graph, id) {
  const [head, ...rest] = String(id).split(":");
  const node = graph?.getNodeById(Number(head)) ?? graph?.getNodeById(head) ?? null;
  if (!rest.length || !node) return node;
  return findNode(node.subgraph, rest.join(":"));
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * What the live view shows, as pure functions on plain data: no DOM, no ComfyUI, nothing remembered.
 * Events are `bwcache.step` as listed in docs/events.md. Evaluations, steps and blocks count from 0, as in the report.
 * What makes text takes the words of a language (words.js) as its last argument.
 */

import { ENGLISH, fill } from "./words.js";

/**
 * @typedef {object} Evaluation one evaluation of the model, as the event has it
 * @typedef {object} Run everything known of one sampling run
 * @property {string} id
 * @property {Evaluation[]} evaluations by number; holes where the page was not open
 */

const RUN_FIELDS = [
  "node_id", "workflow", "model", "mode", "total_steps", "threshold", "plan", "planned", "plan_note", "block_count",
  "evaluations_reused", "speedup", "seconds_saved", "cache_bytes", "notice", "done",
];

/**
 * The run after an event. An event of another run starts afresh.
 * @param {Run|null} run
 * @param {object} event
 * @returns {Run}
 */
export function reduce(run, event) {
  const evaluations = [...(run && run.id === event.run ? run.evaluations : [])];
  for (const cell of [...(event.history ?? []), event.evaluation]) {
    if (cell) evaluations[cell.evaluation] = cell;
  }
  const known = Object.fromEntries(RUN_FIELDS.map((name) => [name, event[name]]));
  return { ...known, id: event.run, evaluations, finished: event.finished ?? null };
}

/** @param {Run|null} run whether it has a plan instead of blocks */
export function isForecast(run) {
  return !run || !(run.block_count > 0);
}

/**
 * Evaluations that a step takes, once the run shows it.
 * @param {Run} run
 * @returns {number}
 */
export function evaluationsPerStep(run) {
  const seen = run.evaluations.length;
  const step = run.evaluations.at(-1)?.step ?? 0;
  return step > 0 ? Math.max(1, Math.round((seen - 1) / step)) : 1;
}

/**
 * Columns of the map: evaluations expected in all.
 * @param {Run} run
 * @returns {number}
 */
export function columnCount(run) {
  const seen = run.evaluations.length;
  if (run.done && run.finished) return Math.max(seen, 1);
  return Math.max(seen, run.total_steps * evaluationsPerStep(run), 1);
}

/**
 * Whether the plan computes a step. Modes without a plan compute all.
 * @param {Run} run
 * @param {number} step
 * @returns {boolean}
 */
export function isPlanned(run, step) {
  return !run.planned.length || isIn(run.planned, step);
}

/**
 * @param {[number, number][]} ranges first and last of each
 * @param {number} step
 */
export function isIn(ranges, step) {
  return ranges.some(([first, last]) => first <= step && step <= last);
}

/**
 * What a person reads of one step of a plan: "measured, step 7: reused, expected error 0.12, sigma 0.83".
 * @param {{sigmas: number[]}} plans
 * @param {{name: string, computed: [number, number][], errors: (number|null)[]}} strip
 * @param {number} step
 * @returns {string}
 */
export function describePlanned(plans, strip, step, words = ENGLISH) {
  const error = strip.errors[step];
  const kind = strip.name === "ran" ? words.error : words.expected;
  const parts = [isIn(strip.computed, step) ? words.computed : words.reused];
  if (Number.isFinite(error)) parts.push(`${kind} ${number(error)}`);
  parts.push(`sigma ${number(plans.sigmas[step])}`);
  const place = [nameOf(strip.name, words), fill(words.step, { step })].join(words.comma);
  return `${place}: ${parts.join(words.comma)}`;
}

/** @param {string} name of a plan or of a part of a latent @returns {string} in the reader's language, if it has a word for it */
export function nameOf(name, words = ENGLISH) {
  return Object.hasOwn(words, name) ? words[name] : name;
}

/**
 * What became of a step, or will: in forecast mode.
 * @param {Run} run
 * @param {number} column
 * @returns {{kind: "computed"|"reused"|"partial"|"aside", ran: boolean}} aside: computed against the plan
 */
export function fateOf(run, column) {
  const cell = run.evaluations[column];
  if (!cell) {
    const step = Math.floor(column / evaluationsPerStep(run));
    return { kind: isPlanned(run, step) ? "computed" : "reused", ran: false };
  }
  if (cell.action === "reuse") return { kind: "reused", ran: true };
  if (cell.action === "partial") return { kind: "partial", ran: true };
  return { kind: isPlanned(run, cell.step) ? "computed" : "aside", ran: true };
}

/**
 * Whether a block ran in an evaluation. "rule": it ran whatever was measured (window, interval).
 * @param {Evaluation} cell
 * @param {number} block
 * @returns {"reused"|"computed"|"rule"}
 */
export function kindOf(cell, block) {
  if (cell.reused_blocks.some(([first, last]) => first <= block && block <= last)) return "reused";
  return cell.judged === null ? "rule" : "computed";
}

/**
 * The number an evaluation is drawn at: the error of its forecast, or the change of the blocks.
 * @param {Run} run
 * @param {Evaluation} cell
 * @returns {number|null}
 */
export function valueOf(run, cell) {
  return (isForecast(run) ? cell.error : cell.change) ?? null;
}

/**
 * Shade of a block, 0 (pale) to 1 (strong): how much it changed, against the most that was seen in the run.
 * @param {Run} run
 * @param {Evaluation} cell
 * @param {number} block
 * @param {number} most from mostChange()
 * @returns {number}
 */
export function shadeOf(run, cell, block, most) {
  if (kindOf(cell, block) === "reused") {
    const share = cell.limit > 0 ? (cell.judged ?? 0) / cell.limit : 0;
    return clamp(share, 0, 1);
  }
  const value = cell.block_changes[block] ?? valueOf(run, cell);
  if (value === null || value === undefined || !(most > 0)) return 0.35;
  return Math.sqrt(clamp(value / most, 0, 1));
}

/**
 * The largest change in the run, the full shade. Three times the limit is enough: first steps change beyond all measure.
 * @param {Run} run
 * @returns {number}
 */
export function mostChange(run) {
  const values = present(run).flatMap((cell) => [...cell.block_changes, valueOf(run, cell)]);
  const most = Math.max(0, ...values.filter(Number.isFinite));
  return run.threshold > 0 ? Math.min(most, 3 * run.threshold) : most;
}

/**
 * Upper end of the curve's scale. The threshold is on it unless all values lie far below; what is far above is cut off.
 * @param {Run} run
 * @returns {number}
 */
export function curveTop(run) {
  const most = Math.max(0, ...present(run).map((cell) => valueOf(run, cell)).filter(Number.isFinite));
  const { threshold } = run;
  if (!(threshold > 0) || (most > 0 && most < threshold / 4)) return most * 1.25 || 1;
  return clamp(most * 1.15, 1.25 * threshold, 3 * threshold);
}

/**
 * Points of the curve. `over`: beyond the scale, drawn at its upper end.
 * @param {Run} run
 * @returns {{column: number, share: number, over: boolean, kind: string}[]}
 */
export function curvePoints(run) {
  const top = curveTop(run);
  return present(run).flatMap((cell) => {
    const value = valueOf(run, cell);
    if (value === null) return [];
    const kind = isForecast(run) ? fateOf(run, cell.evaluation).kind : cell.action === "compute" ? "computed" : "reused";
    return [{ column: cell.evaluation, share: clamp(value / top, 0, 1), over: value > top, kind }];
  });
}

/**
 * Where the threshold lies on the scale.
 * @param {Run} run
 * @returns {number|null} null where there is none, or it is far above
 */
export function limitShare(run) {
  const share = run.threshold / curveTop(run);
  return run.threshold > 0 && share <= 1 ? share : null;
}

/** @param {Run} run evaluations that were seen */
export function present(run) {
  return run.evaluations.filter(Boolean);
}

/**
 * "10 of 20 steps computed, about 1.9x". Speed is told at the end: until then it is a guess.
 * @param {Run|null} run
 * @returns {string}
 */
export function headline(run, words = ENGLISH) {
  if (!run) return words.none;
  const cells = present(run);
  if (!cells.length && !run.done) return expectation(run, words);
  const computed = cells.filter((cell) => cell.action !== "reuse").length;
  if (!run.done) return fill(words.soFar, { computed, reused: cells.length - computed });
  const counted = cells.length > run.total_steps ? words.evaluations : words.steps;
  const parts = [fill(counted, { computed, all: cells.length })];
  if (run.mode === "per block") parts[0] = fill(words.blocks, { percent: percentReused(run) });
  if (Number.isFinite(run.speedup)) parts.push(fill(words.faster, { times: run.speedup.toFixed(1) }));
  return parts.join(words.comma);
}

function expectation(run, words) {
  if (!run.planned.length) return words.begins;
  const computed = run.planned.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const measured = run.plan_note?.startsWith("measured");
  return fill(measured ? words.measuredPlan : words.plan, { computed, all: run.total_steps });
}

function percentReused(run) {
  const sum = (name) => present(run).reduce((total, cell) => total + cell[name], 0);
  return Math.round(100 * (1 - sum("work_run") / Math.max(sum("work_total"), 1)));
}

/**
 * Where the run is: "17/30", "stopped at 9/30", nothing once it has ended.
 * @param {Run|null} run
 * @returns {string}
 */
export function progress(run, words = ENGLISH) {
  if (!run) return "";
  const done = (run.evaluations.at(-1)?.step ?? -1) + 1;
  if (!run.done) return `${Math.min(done, run.total_steps)}/${run.total_steps}`;
  if (run.finished) return "";
  return done ? fill(words.stoppedAt, { place: `${done}/${run.total_steps}` }) : words.stopped;
}

function sumOfSeconds(run) {
  return present(run).reduce((total, cell) => total + (cell.seconds ?? 0), 0);
}

/**
 * What the colours mean that occur, with their names in the palette.
 * @param {Run|null} run
 * @returns {[string, string][]}
 */
export function legend(run, words = ENGLISH) {
  const kinds = new Set(run ? present(run).map((cell) => fateOf(run, cell.evaluation).kind) : []);
  const always = isForecast(run) ? ["computed", "reused"] : ["computed", "rule", "reused"];
  const names = isForecast(run) ? ["computed", "reused", "partial", "aside"] : always;
  return names.filter((kind) => always.includes(kind) || kinds.has(kind)).map((kind) => [kind, words[kind]]);
}

/** @param {Run|null} run @returns {string} what the curve is held against, and in block modes what is held in memory */
export function limits(run, words = ENGLISH) {
  if (!run || !(run.threshold > 0)) return "";
  const held = isForecast(run) ? [] : [bytes(run.cache_bytes)];
  return [fill(words.threshold, { value: number(run.threshold) }), ...held].join(words.comma);
}

const LEAST_SAVED = 0.05; // seconds, as in advice.py

/** @param {Run|null} run @returns {string} "9.2 s, about 8.7 s saved", once a run has ended */
export function times(run, words = ENGLISH) {
  if (!run?.finished) return "";
  const saved = run.seconds_saved >= LEAST_SAVED ? [fill(words.saved, { time: seconds(run.seconds_saved) })] : [];
  return [seconds(sumOfSeconds(run)), ...saved].join(words.comma);
}

/** @param {Run|null} run @returns {string} what the curve shows */
export function valueName(run, words = ENGLISH) {
  return isForecast(run) ? words.error : words.change;
}

/**
 * What a person reads of one evaluation when pointing at it.
 * @param {Run} run
 * @param {number} column
 * @param {number|null} block null when pointing at the curve
 * @returns {string}
 */
export function describe(run, column, block, words = ENGLISH) {
  const cell = run.evaluations[column];
  return isForecast(run) ? describeStep(run, column, cell, words) : cell ? describeBlock(cell, block, words) : "";
}

/** In the words' own names. */
const FATES = { computed: "computed", reused: "reused", partial: "reusedInPart", aside: "computedAside" };

function describeStep(run, column, cell, words) {
  const what = words[FATES[fateOf(run, column).kind]];
  if (!cell) {
    const step = Math.floor(column / evaluationsPerStep(run));
    return run.done ? "" : `${fill(words.step, { step })}: ${fill(words.will, { what })}`;
  }
  const parts = [what, cell.reason];
  if (Number.isFinite(cell.error)) parts.push(`${words.error} ${number(cell.error)}${byPart(cell, words)}`);
  parts.push(`sigma ${number(cell.sigma)}`, seconds(cell.seconds));
  return `${fill(words.step, cell)}: ${parts.join(words.comma)}`;
}

/** @param {Evaluation} cell @returns {string} " (picture 0.05, sound 0.12)" where one latent holds both */
function byPart(cell, words) {
  const parts = Object.entries(cell.parts ?? {}).filter(([, error]) => Number.isFinite(error));
  const told = parts.map(([name, error]) => `${nameOf(name, words)} ${number(error)}`);
  return told.length ? ` (${told.join(words.comma)})` : "";
}

function describeBlock(cell, block, words) {
  const change = block === null ? undefined : cell.block_changes[block];
  const kind = block === null ? cell.action : kindOf(cell, block);
  const done = kind === "reused" || kind === "reuse" ? words.reused : kind === "partial" ? words.reusedInPart : words.computed;
  const place = [fill(words.step, cell), ...(block === null ? [] : [fill(words.block, { block })])].join(words.comma);
  const measured = Number.isFinite(change) ? fill(words.changed, { value: number(change) }) : "";
  return `${place}: ${[done + measured, cell.reason, seconds(cell.seconds)].join(words.comma)}`;
}

/**
 * @param {number} count
 * @returns {string} "320 MiB": in the units of max_cache_mb
 */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = count >= 1 ? Math.min(Math.floor(Math.log2(count) / 10), 3) : 0;
  const value = count / 1024 ** power;
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

const STRIP = 30; // pixels: the height of the steps in forecast mode

/**
 * Where things are on the canvas, in CSS pixels. Block 0 is at the bottom; one row is a strip of steps.
 * @param {number} width
 * @param {number} height
 * @param {number} columns
 * @param {number} rows
 */
export function layout(width, height, columns, rows) {
  const left = 46;
  const axis = 13;
  const between = 9;
  const body = Math.max(height - axis - between, 20);
  const mapHeight = rows > 1 ? Math.round(body * 0.62) : Math.min(STRIP, Math.round(body / 2));
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
 * @returns {number[]} from 0
 */
export function ticks(total, most = 6) {
  const last = total - 1;
  const stride = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => last / size <= most) ?? Math.max(last, 1);
  const inner = Array.from({ length: Math.floor(last / stride) }, (_, i) => (i + 1) * stride);
  const clear = inner.filter((step) => last - step >= stride / 2);
  return last > 0 ? [0, ...clear, last] : [0];
}

export const DARK = {
  empty: "rgba(255, 255, 255, 0.055)",
  computed: [[35, 66, 105], [94, 168, 255]],
  rule: [[52, 60, 72], [121, 134, 152]],
  reused: [[255, 209, 92], [247, 138, 44]],
  partial: [[150, 160, 90], [190, 205, 110]],
  aside: [[190, 80, 74], [240, 106, 98]],
  line: "rgba(255, 255, 255, 0.34)",
  limit: "rgba(255, 255, 255, 0.75)",
  text: "rgba(255, 255, 255, 0.6)",
  band: "rgba(255, 190, 80, 0.13)",
};
export const LIGHT = {
  empty: "rgba(0, 0, 0, 0.05)",
  computed: [[176, 205, 240], [24, 92, 178]],
  rule: [[214, 219, 227], [130, 141, 157]],
  reused: [[255, 198, 66], [233, 122, 12]],
  partial: [[196, 205, 120], [130, 145, 50]],
  aside: [[235, 150, 145], [206, 60, 52]],
  line: "rgba(0, 0, 0, 0.34)",
  limit: "rgba(0, 0, 0, 0.7)",
  text: "rgba(0, 0, 0, 0.64)",
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
 * What a calibration takes, in uncached runs: up to a step for each plan what calibration.py says, which knows the schedule.
 * @param {{seeds: number, trials: number, speedups: string}} asked
 * @returns {number|null} null where the speed-ups cannot be read
 */
export function calibrationCost({ seeds, trials, speedups }) {
  const factors = [...new Set(partsOf(String(speedups)).map((part) => Number(part.replace(/x$/, ""))))];
  if (!factors.length || !factors.every((factor) => factor > 1 && factor <= 10)) return null;
  const unseen = Math.max(1, trials - seeds);
  const tried = 4 + 2 * (trials - 1); // each plan once, the better two again
  return seeds + unseen + tried * factors.reduce((sum, factor) => sum + 1 / factor, 0);
}

/** The numbers of a text, one by one; none where a comma may be a decimal one or not. */
function partsOf(text) {
  const spaced = text.split(/,?[\s;]+/).filter(Boolean);
  const isDecimal = (part) => /^\d,\dx?$/.test(part);
  const listed = spaced.some((part) => !isDecimal(part) && /[.,]/.test(part));
  if (!spaced.some(isDecimal)) return spaced.flatMap((part) => part.split(",")).filter(Boolean);
  return listed || spaced.length === 1 ? [] : spaced.map((part) => part.replace(",", "."));
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

const NOT_RUN = [2, 4]; // modes of a node that is muted or bypassed

/**
 * Nodes of a graph and of its subgraphs.
 * @param {object} graph the root graph
 * @param {boolean} all whether also those that a prompt leaves out: bypassed or muted, or in a subgraph that is
 * @returns {object[]} a node more than once where its subgraph is used more than once
 */
export function nodesOf(graph, all) {
  const nodes = (graph?.nodes ?? []).filter((node) => all || !NOT_RUN.includes(node.mode));
  return nodes.flatMap((node) => [node, ...nodesOf(node.subgraph, all)]);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

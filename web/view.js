/** The live view of one BWCache Apply node, and the text of a BWCache Report: elements and canvas, no ComfyUI. */

import {
  columnCount, curvePoints, curveTop, DARK, describe, fateOf, headline, hit, isForecast, isLight, kindOf, layout, legend,
  LIGHT, limitShare, limits, mix, mostChange, number, progress, shadeOf, ticks, times, valueName,
} from "./model.js";

import { PlanStrips } from "./plans.js";
import { wordsOf } from "./words.js";

const SHARPNESS = 2; // canvas pixels per CSS pixel at least: the canvas stays sharp when the graph is zoomed
const REST = { rows: 1, columns: 20 }; // the empty strip before the first run
const FONT = "10px system-ui, sans-serif";
const SHADE = 0.6; // of what ran, on its ramp
const MOST_KEYS = 4; // of the legend
const PADDING = 20; // above and below a report's text with its border, as in bwcache.css

/** Shows a Run (model.js). One per node: connect() it when the node is added, dispose() when it is removed. */
export class LiveView {
  /** @param {() => object} speak the words of the language that the user reads (words.js) */
  constructor(speak = wordsOf) {
    this.speak = speak;
    this.run = null;
    this.element = make("div", "bwcache-view");
    const head = this.element.appendChild(make("div", "bwcache-head"));
    this.headline = head.appendChild(make("div", "bwcache-headline"));
    this.progress = head.appendChild(make("div", "bwcache-progress"));
    this.stage = this.element.appendChild(make("div", "bwcache-stage"));
    this.canvas = this.stage.appendChild(make("canvas", "bwcache-canvas"));
    this.running = this.stage.appendChild(make("div", "bwcache-running"));
    this.invitation = this.stage.appendChild(make("div", "bwcache-invitation"));
    this.foot = this.element.appendChild(make("div", "bwcache-foot"));
    this.legend = this.foot.appendChild(make("div", "bwcache-legend"));
    this.swatches = Array.from({ length: MOST_KEYS }, () => this.legend.appendChild(make("span", "bwcache-key")));
    this.limit = this.legend.appendChild(make("span", "bwcache-key bwcache-limit"));
    this.times = this.legend.appendChild(make("div", "bwcache-times"));
    this.text = this.foot.appendChild(make("div", "bwcache-text"));
    this.frame = 0;
    this.resized = new ResizeObserver(() => this.redraw());
    this.themed = new MutationObserver(() => this.redraw());
    this.point = (event) => this.hover(event);
    this.leave = () => this.say("");
    this.show(null);
  }

  /** Begins to follow size, theme and pointer. The opposite of dispose(); a node may be added again. */
  connect() {
    this.dispose();
    this.resized.observe(this.stage);
    this.themed.observe(document.documentElement, { attributes: true, attributeFilter: ["class", "style"] });
    this.themed.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.canvas.addEventListener("pointermove", this.point);
    this.canvas.addEventListener("pointerleave", this.leave);
    this.redraw();
  }

  /**
   * @param {import("./model.js").Run|null} run
   * @param {boolean} bypassed the prompt was queued without this node
   */
  show(run, bypassed = false) {
    this.run = run;
    const words = (this.words = this.speak());
    this.headline.textContent = this.headline.title = bypassed ? words.off : headline(run, words);
    this.invitation.textContent = bypassed ? words.bypassed : words.invitation;
    this.progress.textContent = progress(run, words);
    this.names = legend(run, words);
    this.swatches.forEach((swatch, i) => (swatch.textContent = this.names[i]?.[1] ?? ""));
    this.limit.textContent = limits(run, words);
    this.times.textContent = times(run, words);
    this.element.dataset.state = !run ? "rest" : run.done ? "done" : "running";
    this.say("");
    this.redraw();
  }

  /** Draws at the next frame, once for however many changes came before it. */
  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.resized.disconnect();
    this.themed.disconnect();
    this.canvas.removeEventListener("pointermove", this.point);
    this.canvas.removeEventListener("pointerleave", this.leave);
  }

  /** Text in place of the legend; without any, the run's own notice. */
  say(text) {
    const line = text || (this.run?.notice ?? "");
    this.text.textContent = line;
    this.text.title = line;
    this.foot.dataset.text = String(Boolean(line));
    this.text.dataset.notice = String(!text);
  }

  hover(event) {
    if (!this.run || !this.at) return;
    const box = this.canvas.getBoundingClientRect();
    const zoom = box.width / this.canvas.clientWidth || 1; // the graph scales its widgets
    const place = hit(this.at, (event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom);
    this.say(place ? describe(this.run, place.column, place.block, this.words) : "");
  }

  draw() {
    this.frame = 0;
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const colours = isLight(getComputedStyle(this.element).backgroundColor) ? LIGHT : DARK;
    const context = prepare(this.canvas, width, height);
    const { rows, columns } = this.run
      ? { rows: Math.max(this.run.block_count, 1), columns: columnCount(this.run) }
      : REST;
    this.at = layout(width, height, columns, rows);
    this.names.forEach(([name], i) => this.swatches[i].style.setProperty("--swatch", mix(colours[name], SHADE)));
    if (isForecast(this.run)) drawStrip(context, this.at, this.run, colours);
    else drawMap(context, this.at, this.run, colours);
    if (this.run) drawCurve(context, this.at, this.run, colours);
    drawAxes(context, this.at, this.run, colours, this.words);
    this.placeRunning();
  }

  /** The column that is being sampled, as an element: it pulses without drawing anything anew. */
  placeRunning() {
    const column = this.run?.evaluations.length ?? 0;
    const shown = this.run && !this.run.done && column < this.at.columns;
    this.running.style.display = shown ? "" : "none";
    this.running.style.left = `${this.at.left + column * this.at.step}px`;
    this.running.style.width = `${Math.max(this.at.step - this.at.gapX, 1)}px`;
    this.running.style.height = `${this.at.map.height}px`;
  }
}

/** Texts of a report or a comparison, the first line of each set off. */
export class ReportView {
  /**
   * @param {() => object} speak as in LiveView
   * @param {string} invitation name of the words that are shown before the first run
   */
  constructor(speak = wordsOf, invitation = "report") {
    this.told = false; // of a run
    this.element = make("div", "bwcache-report");
    this.lines = this.element.appendChild(make("div", "bwcache-lines"));
    this.plans = new PlanStrips(speak);
    this.element.append(this.plans.element);
    this.show(speak()[invitation]);
  }

  /** @param {...string} texts lines of each */
  show(...texts) {
    this.lines.replaceChildren(...texts.flatMap(elements));
  }

  /** Pixels that all of it takes; little while it is not on a page. */
  get wanted() {
    return [...this.element.children].reduce((sum, part) => sum + (part.offsetHeight ?? 0), PADDING);
  }
}

function elements(text) {
  const [first, ...rest] = text.split("\n");
  return [make("div", "bwcache-verdict", first), ...rest.filter(Boolean).map((line) => make("div", "bwcache-line", line))];
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

function prepare(canvas, width, height) {
  const scale = Math.max(SHARPNESS, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  return context;
}

/** The steps of a run: pale while they are only planned. */
function drawStrip(context, at, run, colours) {
  for (let column = 0; column < at.columns; column++) {
    if (!run) {
      drawCell(context, at, column, 0, colours.empty);
      continue;
    }
    const { kind, ran } = fateOf(run, column);
    drawCell(context, at, column, 0, ran ? mix(colours[kind], SHADE) : colours.empty);
    if (!ran && !run.done) {
      context.globalAlpha = 0.34;
      drawCell(context, at, column, 0, mix(colours[kind], SHADE));
      context.globalAlpha = 1;
    }
  }
}

function drawMap(context, at, run, colours) {
  const most = mostChange(run);
  for (let column = 0; column < at.columns; column++) {
    const cell = run.evaluations[column];
    for (let block = 0; block < at.rows; block++) {
      const colour = cell ? mix(colours[kindOf(cell, block)], shadeOf(run, cell, block, most)) : colours.empty;
      drawCell(context, at, column, block, colour);
    }
  }
}

function drawCell(context, at, column, block, colour) {
  const x = at.left + column * at.step;
  const y = at.map.top + (at.rows - 1 - block) * at.rise;
  const [width, height] = [at.step - at.gapX, at.rise - at.gapY];
  context.fillStyle = colour;
  context.beginPath();
  if (at.gapX && at.gapY) context.roundRect(x, y, width, height, Math.min(1.75, width / 3, height / 3));
  else context.rect(x, y, width, height + (at.gapY ? 0 : 0.4)); // no hairlines between rows that touch
  context.fill();
}

function drawCurve(context, at, run, colours) {
  const { top, height } = at.curve;
  const [x, y] = [(column) => at.left + (column + 0.5) * at.step - at.gapX / 2, (share) => top + height * (1 - share)];
  const points = curvePoints(run);
  context.fillStyle = colours.band;
  for (const cell of run.evaluations) {
    if (cell && cell.action !== "compute") context.fillRect(at.left + cell.evaluation * at.step, top, at.step, height);
  }
  drawLimit(context, at, run, colours, y);
  context.strokeStyle = colours.line;
  context.lineWidth = 1.25;
  context.beginPath();
  for (const point of points) context.lineTo(x(point.column), y(point.share));
  context.stroke();
  for (const point of points) {
    context.fillStyle = mix(colours[point.kind], 1);
    context.beginPath();
    if (point.over) drawArrow(context, x(point.column), top);
    else context.arc(x(point.column), y(point.share), clampRadius(at.step), 0, 2 * Math.PI);
    context.fill();
  }
}

function clampRadius(step) {
  return Math.min(2.75, Math.max(1.25, step * 0.32));
}

/** A value above the scale. */
function drawArrow(context, x, top) {
  context.moveTo(x, top - 1);
  context.lineTo(x + 3, top + 4);
  context.lineTo(x - 3, top + 4);
}

/** The threshold as a line; where it lies far above, the upper end of the scale in its place. */
function drawLimit(context, at, run, colours, y) {
  const share = limitShare(run);
  context.fillStyle = colours.text;
  context.textAlign = "right";
  if (share === null) {
    if (curvePoints(run).length) context.fillText(number(curveTop(run)), at.left - 5, at.curve.top + 8);
    return;
  }
  context.strokeStyle = colours.limit;
  context.lineWidth = 1;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(at.left, y(share));
  context.lineTo(at.right, y(share));
  context.stroke();
  context.setLineDash([]);
  context.fillText(number(run.threshold), at.left - 5, y(share) + 3);
}

function drawAxes(context, at, run, colours, words) {
  context.fillStyle = colours.text;
  if (!run) return;
  context.textAlign = "right";
  if (isForecast(run)) {
    context.fillText(words.stepsAxis, at.left - 5, at.map.top + at.map.height / 2 + 3);
  } else {
    drawTitle(context, words.blocksAxis, at.map.top + at.map.height / 2);
    context.fillText(String(at.rows - 1), at.left - 5, at.map.top + 8);
    context.fillText("0", at.left - 5, at.map.top + at.map.height - 1);
  }
  drawTitle(context, valueName(run, words), at.curve.top + at.curve.height / 2);
  context.textAlign = "right";
  if ((limitShare(run) ?? 1) * at.curve.height > 9) context.fillText("0", at.left - 5, at.curve.top + at.curve.height);
  context.fillText(at.columns > run.total_steps ? words.callAxis : words.stepAxis, at.left - 5, at.axisY);
  context.textAlign = "center";
  for (const step of ticks(at.columns)) {
    const text = String(step);
    const half = context.measureText(text).width / 2;
    const x = at.left + (step + 0.5) * at.step;
    context.fillText(text, Math.min(Math.max(x, at.left + half), at.right - half), at.axisY);
  }
}

/** Name of an axis, read from below. */
function drawTitle(context, text, y) {
  context.save();
  context.translate(8, y);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(text, 0, 0);
  context.restore();
}

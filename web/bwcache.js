/** BWCache in the browser: one listener for `bwcache.step`, a view per BWCache Apply node, text on Report and Compare. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { rememberLinks, restoreLinks } from "./links.js";
import { calibrationCost, findNode, nodesOf, reduce } from "./model.js";
import { LiveView, ReportView } from "./view.js";
import { fill, wordsOf } from "./words.js";

const EVENT = "bwcache.step";
const SETTING = "BWCache.LiveView";
const HEIGHTS = { BWCacheApply: 210, BWCacheReport: 140, BWCacheCompare: 84, BWCacheCalibrate: 150 };
const TALLEST_TEXT = 310; // the rest of a node is for its pictures
const MARGIN = 20; // that the canvas leaves above and below a widget
const WITH_MODES = ["BWCacheApply", "BWCacheApplyRaylight"];
const INVITATIONS = { BWCacheReport: "report", BWCacheCompare: "compare", BWCacheCalibrate: "calibrate" }; // names of words
const WIDTH = 380;
const KEPT_RUNS = 32;

/** Views by node. Weak: a node that is gone takes its view along. */
const views = new WeakMap();
/** Newest run by workflow and node, so that a map is back when its tab is opened again, or after an undo. */
const runs = new Map();

const VIEWS = { BWCacheApply: LiveView, BWCacheReport: ReportView, BWCacheCompare: ReportView, BWCacheCalibrate: ReportView };

app.registerExtension({
  name: "bwcache.LiveView",

  settings: [
    {
      id: SETTING,
      category: ["BWCache", "Live view", "Show"],
      name: "Show the live view on BWCache Apply",
      tooltip: "Nodes that are open already follow when the workflow is loaded again.",
      type: "boolean",
      defaultValue: true,
    },
  ],

  init() { // as early as there is a hook: the frontend complains of messages that nobody listens to
    api.addEventListener(EVENT, (event) => receive(event.detail));
    api.addEventListener("execution_start", clearBypassed);
  },

  nodeCreated(node) {
    if (WITH_MODES.includes(node.comfyClass)) rememberLinks(node);
    const View = VIEWS[node.comfyClass];
    if (!View || (View === LiveView && app.extensionManager.setting.get(SETTING) === false)) return;
    addView(node, new View(words, INVITATIONS[node.comfyClass]));
  },

  afterConfigureGraph() {
    restoreLinks(app.rootGraph);
    for (const run of runs.values()) paint(run);
  },
});

/** In the language that ComfyUI is set to, as long as it is. */
function words() {
  return wordsOf(app.extensionManager.setting.get("Comfy.Locale"));
}

function keyOf(event) {
  return `${event.workflow}|${event.node_id}`;
}

function receive(event) {
  const key = keyOf(event);
  const run = reduce(runs.get(key) ?? null, event);
  runs.delete(key); // the newest is last
  runs.set(key, run);
  if (runs.size > KEPT_RUNS) runs.delete(runs.keys().next().value);
  paint(run);
}

/** A prompt runs without the nodes that are bypassed: what they show of an earlier run would be taken for this one's. */
function clearBypassed() {
  const ran = new Set(nodesOf(app.rootGraph, false));
  for (const node of new Set(nodesOf(app.rootGraph, true))) {
    const view = views.get(node);
    if (!(view instanceof LiveView) || ran.has(node)) continue;
    view.show(null, true);
    for (const [key, run] of runs) if (findNode(app.rootGraph, run.node_id) === node) runs.delete(key);
  }
}

/** Shows a run on its node, if that is in the workflow that is open. */
function paint(run) {
  if (run.workflow && app.rootGraph.id && run.workflow !== app.rootGraph.id) return;
  const view = views.get(findNode(app.rootGraph, run.node_id));
  if (view instanceof LiveView) view.show(run);
}

function addView(node, view) {
  const height = HEIGHTS[node.comfyClass];
  view.element.prepend(styles());
  const widget = node.addDOMWidget("bwcache_view", "bwcache", view.element, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true, // the properties panel would list it as an input, and move it there
    getMinHeight: () => Math.min(Math.max(height, (view.wanted ?? 0) + MARGIN), TALLEST_TEXT),
    ...(view instanceof ReportView ? { getMaxHeight: () => TALLEST_TEXT } : {}),
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // both: this one keeps it out of widgets_values, the option out of the prompt
  views.set(node, view);
  node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]]);
  after(node, "onAdded", () => {
    view.element.addEventListener("wheel", zoomGraph, { passive: true });
    view.connect?.();
  });
  after(node, "onRemoved", () => {
    view.element.removeEventListener("wheel", zoomGraph);
    view.dispose?.();
  });
  if (view instanceof ReportView) after(node, "onExecuted", (output) => showReport(node, view, output ?? {}));
  if (node.comfyClass === "BWCacheCalibrate") foretellCost(node, view);
}

/** Says before the first run what it will take, as the widgets stand. */
function foretellCost(node, view) {
  const tell = () => {
    const asked = Object.fromEntries(node.widgets.map(({ name, value }) => [name, value]));
    const cost = calibrationCost(asked);
    const line = cost === null ? "" : `\n${fill(words().cost, { times: cost.toFixed(1) })}`;
    if (!view.told) view.show(words().calibrate + line);
  };
  tell();
  for (const name of ["onWidgetChanged", "onConfigure"]) after(node, name, tell);
}

/** In each view, not in the head of the page, which all packs share. The browser loads the file once. */
function styles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./bwcache.css", import.meta.url).href;
  return link;
}

/**
 * A report that ComfyUI had kept comes without the run's events: it brings the run for the live view along. Where the node ran
 * for each item of a list, there is a value of each: texts that differ are shown, and what belongs to the newest run.
 */
function showReport(node, view, { text, bwcache_run: shown = [], bwcache_plans: plans = [] }) {
  if (text) view.show(...new Set([text].flat().map(String)));
  view.plans.show(plans.at(-1) ?? null);
  view.told ||= Boolean(text);
  const run = shown.at(-1);
  if (run && !runs.has(keyOf(run))) receive(run);
  const [width, height] = node.size;
  node.setSize([width, Math.max(height, node.computeSize()[1])]); // a longer text would be cut off
  node.setDirtyCanvas(true, true);
}

/** In the classic canvas the wheel over a widget would do nothing: it zooms the graph, as beside the widget. */
function zoomGraph(event) {
  if (!event.currentTarget.closest(".dom-widget")) return;
  app.canvas.processMouseWheel(event);
}

/** Calls `then` after the node's own callback of that name, which keeps working. */
function after(node, name, then) {
  const before = node[name];
  node[name] = function (...args) {
    const result = before?.apply(this, args);
    then(...args);
    return result;
  };
}

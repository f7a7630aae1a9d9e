/** Plans beside what ran, on a BWCache Report: a strip of steps for each, and what a step is when one points at it. */

import { describePlanned, isIn } from "./model.js";

const INVITATION = "Point at a step to read its sigma and the error of its forecast";

export class PlanStrips {
  constructor() {
    this.element = make("div", "bwcache-plans");
    this.show(null);
  }

  /** @param {object|null} plans as events.py's plans_payload has them; null hides the strips */
  show(plans) {
    this.element.hidden = !plans;
    this.text = make("div", "bwcache-plans-text", INVITATION);
    this.element.replaceChildren(...(plans?.strips ?? []).map((strip) => this.row(plans, strip)), this.text);
  }

  row(plans, strip) {
    const row = make("div", "bwcache-plans-row");
    row.append(make("span", "bwcache-plans-name", strip.name));
    for (let step = 0; step < plans.sigmas.length; step++) {
      const cell = make("span", "bwcache-plans-step");
      cell.dataset.kind = isIn(strip.computed, step) ? "computed" : "reused";
      cell.addEventListener("pointerenter", () => (this.text.textContent = describePlanned(plans, strip, step)));
      row.append(cell);
    }
    row.addEventListener("pointerleave", () => (this.text.textContent = INVITATION));
    return row;
  }
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

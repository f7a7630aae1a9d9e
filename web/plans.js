/** Plans beside what ran, on a BWCache Report: a strip of steps for each, and what a step is when one points at it. */

import { describePlanned, isIn, nameOf } from "./model.js";

export class PlanStrips {
  /** @param {() => object} speak the words of the language that the user reads (words.js) */
  constructor(speak) {
    this.speak = speak;
    this.element = make("div", "bwcache-plans");
    this.show(null);
  }

  /** @param {object|null} plans as events.py's plans_payload has them; null hides the strips */
  show(plans) {
    this.element.hidden = !plans;
    this.text = make("div", "bwcache-plans-text", this.speak().point);
    this.element.replaceChildren(...(plans?.strips ?? []).map((strip) => this.row(plans, strip)), this.text);
  }

  row(plans, strip) {
    const [row, words] = [make("div", "bwcache-plans-row"), this.speak()];
    row.append(make("span", "bwcache-plans-name", nameOf(strip.name, words)));
    for (let step = 0; step < plans.sigmas.length; step++) {
      const cell = make("span", "bwcache-plans-step");
      cell.dataset.kind = isIn(strip.computed, step) ? "computed" : "reused";
      cell.addEventListener("pointerenter", () => (this.text.textContent = describePlanned(plans, strip, step, words)));
      row.append(cell);
    }
    row.addEventListener("pointerleave", () => (this.text.textContent = words.point));
    return row;
  }
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

/** The words of the views in other languages. Run by `node --test`: no package, no browser. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe as group, test } from "node:test";

import * as model from "../../web/model.js";
import { ENGLISH, fill, LANGUAGES, wordsOf } from "../../web/words.js";

const LOCALES = new URL("../../locales/", import.meta.url);
const OTHERS = LANGUAGES.filter((language) => language !== "en");
const values = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

/** A run of six steps that has ended, with an error above the threshold. */
function finished(fields = {}) {
  const cells = [0, 1, 2, 3].map((evaluation) => ({
    evaluation, step: evaluation, sigma: 0.5, action: evaluation === 1 ? "reuse" : "compute", reason: "why", error: 0.2,
    parts: { picture: 0.05, sound: 0.2 }, seconds: 1, work_run: 1, work_total: 2,
  }));
  return {
    mode: "forecast", total_steps: 4, threshold: 0.5, planned: [[0, 0], [3, 3]], plan_note: "", block_count: 0, evaluations: cells,
    speedup: 1.94, seconds_saved: 2.2, cache_bytes: 0, done: true, finished: true, ...fields,
  };
}

group("languages", () => {
  test("are those of the node's labels", () => {
    assert.deepEqual([...LANGUAGES].sort(), readdirSync(LOCALES).sort());
  });
  for (const language of OTHERS) {
    test(`${language} has every word, with the same values in it`, () => {
      const words = wordsOf(language);
      assert.deepEqual(Object.keys(words), Object.keys(ENGLISH));
      for (const [name, text] of Object.entries(words)) {
        assert.deepEqual(values(text), values(ENGLISH[name]), name);
        if (name !== "comma") assert.notEqual(text, ENGLISH[name], `${name} is English`);
      }
    });
  }
  test("name the setting as well", () => {
    const key = readFileSync(new URL("../../web/bwcache.js", import.meta.url), "utf8").match(/SETTING = "(.+)"/)[1].replace(".", "_");
    for (const language of OTHERS) {
      const told = JSON.parse(readFileSync(new URL(`${language}/settings.json`, LOCALES), "utf8"));
      assert.deepEqual(Object.keys(told[key]), ["name", "tooltip"]);
    }
  });
  test("that nobody wrote are English", () => {
    for (const locale of ["en", "fr", "zh-TW", "", undefined, "constructor"]) assert.deepEqual(wordsOf(locale), ENGLISH);
  });
});

group("text", () => {
  test("values stand where the language has them", () => {
    assert.equal(fill("{a} of {b}, {a}{c}", { a: 1, b: 0 }), "1 of 0, 1{c}");
  });
  test("a run is told in the words that are given", () => {
    const [run, words] = [finished(), wordsOf("zh")];
    assert.equal(model.headline(run, words), "计算了 3/4 步，约 1.9 倍");
    assert.equal(model.times(run, words), "4.0 s，约省 2.2 s");
    assert.equal(model.limits(run, words), "阈值 0.5");
    assert.equal(model.describe(run, 1, 0, words), "第 1 步: 复用，why，误差 0.2 (画面 0.05，声音 0.2)，sigma 0.5，1.0 s");
    assert.deepEqual(model.legend(run, words).map(([, name]) => name), ["计算", "复用", "计划外"]);
    assert.equal(model.headline(null, words), "尚未运行");
    assert.equal(model.progress(finished({ finished: false }), words), "停在 4/4");
    const strip = { name: "measured", computed: [], errors: [0.12345] };
    assert.equal(model.describePlanned({ sigmas: [1] }, strip, 0, words), "实测，第 0 步: 复用，预期误差 0.123，sigma 1");
  });
  for (const language of OTHERS) {
    test(`no English is left in ${language}`, () => {
      const [words, early] = [wordsOf(language), finished({ evaluations: [], done: false, finished: null })];
      const blocks = finished({ mode: "per block", block_count: 2 });
      const told = [
        model.headline(finished(), words), model.headline(early, words), model.headline(blocks, words), model.limits(finished(), words),
        model.progress(finished({ finished: false }), words), model.valueName(blocks, words), model.describe(early, 1, 0, words),
        ...model.legend(blocks, words).map(([, name]) => name),
      ];
      for (const text of told) assert.doesNotMatch(text, /[a-z]{2}/i);
    });
  }
});

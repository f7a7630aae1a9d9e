"""The rules that are easy to break, each broken once: what is replaced by what, and the tests that must notice.

A text to replace stands in its file exactly once; where a refactor moves it, tests/mutants says so.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """rule: what is broken. file, old, new: how. tests: each of them must fail then."""

    name: str
    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SESSION = "tests/core/test_session.py"
ADAPTIVE = "tests/core/test_adaptive.py"
ADAPTIVE_RUNS = "tests/core/test_adaptive_runs.py"
CONTRACT = "tests/hosts/test_contract.py"
LIFETIME = "tests/hosts/test_lifetime.py"
FAULTS = "tests/hosts/test_faults.py"
EMBEDDED = "embedded-wan21_t2v"
KEYS = "tests/nodes/test_attach.py::test_every_part_of_an_identity_tells_conditions_apart"

COPIES = "Clone on store, fresh tensor on reuse"
ONCE = "What reaches the head in a reused step is the forecast, once"
IDENTITY = "A stream is (cond, uuid, window, device, n-th occurrence, shape, dtype), never a position in a batch"
OFF = "Threshold 0 is bit-identical to the plain model"
HOOKS = "Another node's block hook is called, not overwritten; one put over ours means: compute"
LIFETIMES = "Nothing survives a run: not an error, not a cancel (a BaseException), not an OOM"
REASONS = "What cannot be cached is computed, and the report says why"
TOGETHER = "One decision for all conditions of an evaluation"
ENDS = "Warm-up and tail always compute"
INDICATOR = "The indicator compares copies of the same tokens, of different steps"
CORRECTOR = "The corrector knows the sampler, or stays out"
FAILURES = "An error of ours costs the run its cache; the model's own errors pass untouched"


def identity(part: str, old: str, new: str) -> Mutant:
    return Mutant(f"a condition without its {part}", IDENTITY, "nodes/attach.py", old, new, (KEYS,))


MUTANTS = [
    Mutant(
        "what is stored is no copy", COPIES, "bwcache_core/forecast.py",
        "self.entries.append((coordinate, buffer))",
        "buffer._tensor = features\n        self.entries.append((coordinate, buffer))",
        ("tests/core/test_forecast.py::test_a_forecast_is_fresh_and_what_is_stored_is_a_copy",),
    ),
    Mutant(
        "what is reused is no copy", COPIES, "bwcache_core/forecast.py",
        "return nodes[0][1].clone()", "return nodes[0][1]",
        (f"{SESSION}::test_outputs_may_be_written_into_by_the_caller",
         f"{SESSION}::test_what_is_added_in_place_after_the_last_block_counts_once_and_spoils_nothing"),
    ),
    Mutant(
        "the forecast is added to what entered", ONCE, "bwcache_core/model_pass.py",
        "return {**args, HIDDEN: self._forecast()}", "return {**args, HIDDEN: args[HIDDEN] + self._forecast()}",
        (f"{SESSION}::test_reuse_returns_exactly_the_frozen_features_and_runs_no_block",
         f"{CONTRACT}::test_reused_steps_hand_the_last_computed_features_to_the_head[{EMBEDDED}]"),
    ),
    identity("prompt", "StreamKey(c, u, *place", "StreamKey(c, None, *place"),
    identity("index", "StreamKey(c, u, *place", "StreamKey(0, u, *place"),
    identity("window", "place = (frames, ", "place = (None, "),
    identity("model", "id(model), device", "0, device"),
    identity("device", "device, shape, dtype)\n", "'', shape, dtype)\n"),
    identity("shape", "device, shape, dtype)\n", "device, (), dtype)\n"),
    identity("precision", "device, shape, dtype)\n", "device, shape, '')\n"),
    Mutant(
        "the second of a name takes the place of the first", IDENTITY, "bwcache_core/session.py",
        "key = key._replace(occurrence=occurrence)", "pass",
        (f"{SESSION}::test_the_same_condition_twice_in_an_evaluation_is_kept_apart",),
    ),
    Mutant(
        "features are found by their place in the batch", IDENTITY, "bwcache_core/model_pass.py",
        "forecasts = [stream.history.forecast(coordinate, order) for stream in self.streams]",
        "forecasts = [s.history.forecast(coordinate, order) for s in sorted(self.streams, key=lambda s: s.label)]",
        (f"{SESSION}::test_every_condition_gets_its_own_features_however_calls_are_batched",
         f"{CONTRACT}::test_reused_steps_hand_the_last_computed_features_to_the_head[{EMBEDDED}]"),
    ),
    Mutant(
        "features of another shape fit", IDENTITY, "bwcache_core/model_pass.py",
        "if not stream.entry or stream.entry != self._shapes(args, stream.entry):\n            return False",
        "pass",
        (f"{SESSION}::test_another_token_count_is_computed_and_never_compared",),
    ),
    Mutant(
        "a condition that was away finds its old features", IDENTITY, "bwcache_core/session.py",
        "if stream.evaluation == evaluation}", "}",
        (f"{SESSION}::test_conditions_that_left_are_dropped",),
    ),
    Mutant(
        "no change is similar at threshold 0", OFF, "bwcache_core/policy.py",
        "change < threshold", "change <= threshold",
        (f"{SESSION}::test_threshold_0_computes_what_did_not_change_at_all",),
    ),
    Mutant(
        "no error is small enough at tolerance 0", OFF, "bwcache_core/adaptive.py",
        "if error < tolerance else", "if error < tolerance + 1e-6 else",
        (f"{ADAPTIVE}::test_tolerance_zero_never_reuses",),
    ),
    Mutant(
        "hooks of other packs are left out", HOOKS, "nodes/attach.py",
        "return inner(block_args, extra) if inner else original(block_args)", "return original(block_args)",
        (f"{CONTRACT}::test_another_packs_block_hook_is_called_on_computed_steps[{EMBEDDED}-paper-before]",),
    ),
    Mutant(
        "a hook put over ours lets the input through", HOOKS, "bwcache_core/model_pass.py",
        "return self._again(compute) if self._passing_through else output", "return output",
        (f"{SESSION}::test_a_hook_laid_over_the_last_block_makes_the_model_run_again",
         f"{CONTRACT}::test_a_hook_laid_over_ours_on_the_last_block_makes_the_step_compute[{EMBEDDED}-paper]"),
    ),
    Mutant(
        "a cancelled run keeps its tensors", LIFETIMES, "nodes/attach.py",
        "finally:  # a cancel is a BaseException",
        "finally:\n            if isinstance(__import__('sys').exc_info()[1], KeyboardInterrupt):\n                raise",
        (f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-inside a block-6-output]",),
    ),
    Mutant(
        "a closed session keeps its tensors", LIFETIMES, "bwcache_core/session.py",
        "stream.forget()\n        self.streams.clear()", "pass",
        (f"{SESSION}::test_close_drops_every_tensor", f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-between steps-2-paper]"),
    ),
    Mutant(
        "what an error left behind is used", LIFETIMES, "bwcache_core/session.py",
        "if self.position is not None:  # the last evaluation raised", "if False:  # the last evaluation raised",
        (f"{SESSION}::test_after_an_exception_the_next_evaluation_computes",),
    ),
    Mutant(
        "the session stays in the options", LIFETIMES, "nodes/attach.py",
        "            guider.model_options = plain_options\n", "",
        (f"{LIFETIME}::test_a_run_that_ends_leaves_nothing[{EMBEDDED}-output]",),
    ),
    Mutant(
        "broken features are taken for sound ones", REASONS, "bwcache_core/measurement.py",
        "if not (math.isfinite(checksum) and ", "if not (",
        (f"{SESSION}::test_broken_features_are_an_error_and_never_reused",
         f"{CONTRACT}::test_broken_features_are_reported_and_never_reused[{EMBEDDED}-adaptive-one token that is not sampled]"),
    ),
    Mutant(
        "no reason is given where nothing fits", REASONS, "bwcache_core/session.py",
        'current.reason = "a condition holds no features that fit"', "pass",
        (f"{SESSION}::test_a_condition_that_appears_in_a_batch_makes_the_batch_compute",),
    ),
    Mutant(
        "a batch reuses though one condition cannot", TOGETHER, "bwcache_core/model_pass.py",
        "fits = all(self._fits(", "fits = any(self._fits(",
        (f"{SESSION}::test_a_condition_that_appears_in_a_batch_makes_the_batch_compute",),
    ),
    Mutant(
        "the condition that changed least decides", TOGETHER, "bwcache_core/measurement.py",
        "change = max((s.change for s in streams", "change = min((s.change for s in streams",
        (f"{SESSION}::test_changes_by_hand",),
    ),
    Mutant(
        "no warm-up", ENDS, "bwcache_core/adaptive.py",
        "len(measured) < WARMUP", "len(measured) < 1", (f"{ADAPTIVE}::test_warm_up_computes",),
    ),
    Mutant(
        "no tail", ENDS, "bwcache_core/adaptive.py",
        "step >= self.rules.run.steps - TAIL", "step >= self.rules.run.steps",
        (f"{ADAPTIVE}::test_the_tail_computes_only_where_the_run_ends_at_sigma_zero",
         f"{ADAPTIVE_RUNS}::test_the_first_and_the_last_evaluations_compute"),
    ),
    Mutant(
        "the sample is a view", INDICATOR, "bwcache_core/similarity.py",
        "return hidden_BLD.flatten(1, -2).index_select(1, index_S)", "return hidden_BLD.flatten(1, -2)[:, : len(index_S)]",
        (f"{SESSION}::test_sampled_features_survive_blocks_that_write_in_place",
         "tests/core/test_similarity.py::test_sampled_tokens_are_a_copy_of_the_chosen_rows"),
    ),
    Mutant(
        "two evaluations of a step are compared", INDICATOR, "bwcache_core/measurement.py",
        "return current.step != previous.step and ", "return ",
        (f"{SESSION}::test_samplers_are_placed_by_sigma_not_by_count",),
    ),
    Mutant(
        "every sampler is corrected", CORRECTOR, "nodes/sampler_response.py",
        "sampler_name(function) not in LINEAR or ", "function is None or ",
        ("tests/nodes/test_attach.py::test_only_a_sampler_that_is_known_is_corrected[sampler1-settings1-False]",),
    ),
    Mutant(
        "noise is taken for what the sampler does", CORRECTOR, "nodes/sampler_response.py",
        " and not any(row[-1] for row in gains)", "",
        ("tests/nodes/test_sampler_response.py::test_samplers_that_add_noise_or_are_not_known_are_not_corrected[sampler0]",),
    ),
    Mutant(
        "what D lacked is carried on with the wrong sign", CORRECTOR, "bwcache_core/corrector.py",
        "[lag, total((-1.0, wanted)), *errors]", "[lag, wanted, *errors]",
        ("tests/core/test_corrector.py::test_the_latent_comes_to_where_the_better_outputs_lead[multistep-0.7]",),
    ),
    Mutant(
        "a sampler that evaluates elsewhere is corrected", CORRECTOR, "bwcache_core/session.py",
        "if not expected(self.sampler, evaluation, sigma):", "if False:",
        (f"{SESSION}::test_nothing_is_corrected_once_the_sampler_evaluates_elsewhere",),
    ),
    Mutant(
        "an error of the model is taken for ours", FAILURES, "nodes/guard.py",
        "if self.in_model or ", "if ",
        (f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-out of memory-5-features]",
         f"{FAULTS}::test_a_hook_of_another_pack_that_raises_ends_the_run_as_without_us[{EMBEDDED}-paper]"),
    ),
    Mutant(
        "a cancel in our own code is swallowed", FAILURES, "nodes/guard.py",
        "except Exception as error:", "except BaseException as error:",
        (f"{FAULTS}::test_a_cancel_anywhere_passes_and_leaves_nothing[{EMBEDDED}-output]",),
    ),
    Mutant(
        "our own errors end the run", FAILURES, "nodes/guard.py",
        "self.session.give_up(error)", "raise",
        (f"{FAULTS}::test_an_error_of_the_cache_costs_the_run_its_cache_and_nothing_else[{EMBEDDED}-output-store-3]",),
    ),
]

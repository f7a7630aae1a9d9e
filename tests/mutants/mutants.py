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


BLOCK_RUN = "tests/paper/test_run.py"
CONTRACT = "tests/hosts/test_blocks_contract.py"
LIFETIME = "tests/hosts/test_blocks_lifetime.py"
FAULTS = "tests/hosts/test_blocks_faults.py"
EMBEDDED = "embedded-wan21_t2v"
KEYS = "tests/nodes/test_attach_blocks.py::test_every_part_of_an_identity_tells_conditions_apart"

RUN = "tests/core/test_run.py"
ATTACH = "tests/nodes/test_attach.py"
SAMPLER = "tests/nodes/test_sampler_response.py"
FORECAST = "tests/hosts/test_forecast_contract.py"
ENDINGS = "tests/hosts/test_forecast_lifetime.py"
LINED = f"{FORECAST}::test_exactly_the_planned_steps_run_and_the_others_get_the_line[{EMBEDDED}]"

COPIES = "Clone on store, fresh tensor on reuse"
ONCE = "What reaches the head in a reused step is what was kept, once"
IDENTITY = "A stream is (cond, uuid, window, device, n-th occurrence, shape, dtype), never a position in a batch"
OFF = "Threshold 0 is bit-identical to the plain model"
HOOKS = "Another node's block hook is called, not overwritten; one put over ours means: compute"
LIFETIMES = "Nothing survives a run: not an error, not a cancel (a BaseException), not an OOM"
REASONS = "What cannot be cached is computed, and the report says why"
TOGETHER = "One decision for all conditions of an evaluation"
ENDS = "The tail always computes"
INDICATOR = "The indicator compares copies of the same tokens, of different steps"
CORRECTOR = "The corrector knows the sampler, or stays out"
FAILURES = "An error of ours costs the run its cache; the model's own errors pass untouched"
PLANNED = "The plan's steps compute, the others get x - sigma * line; speedup 1 keeps nothing"
CALLS = "A call is known by its model, window, shape, type, device, order and what is active, by no name and no place in a batch"
TRUSTED = "Nothing is foretold from what the sampler left, nor further than the measured error allows"


def call_part(part: str, old: str, new: str, case: str) -> Mutant:
    return Mutant(f"a call without its {part}", CALLS, "nodes/attach.py", old, new,
                  (f"{ATTACH}::test_every_part_of_a_call_tells_it_from_others[{case}]",))  # fmt: skip


def identity(part: str, old: str, new: str) -> Mutant:
    return Mutant(f"a condition without its {part}", IDENTITY, "nodes/attach_blocks.py", old, new, (KEYS,))


MUTANTS = [
    Mutant(
        "what is stored is no copy", COPIES, "bwcache_core/paper/storage.py",
        "    buffer.put(tensor, minus)\n", "    buffer._tensor = tensor if minus is None else tensor - minus\n",
        ("tests/paper/test_storage.py::test_what_is_put_is_a_copy",),
    ),
    Mutant(
        "what is reused is no copy", COPIES, "bwcache_core/paper/whole_stack.py",
        "kept[0].clone() if len(kept) == 1", "kept[0] if len(kept) == 1",
        (f"{BLOCK_RUN}::test_outputs_may_be_written_into_by_the_caller",
         f"{BLOCK_RUN}::test_what_is_added_in_place_after_the_last_block_counts_once_and_spoils_nothing"),
    ),
    Mutant(
        "the kept features are added to what entered", ONCE, "bwcache_core/paper/whole_stack.py",
        "HIDDEN: kept[0].clone() if len(kept) == 1 else joined(kept)}", "HIDDEN: args[HIDDEN] + joined(kept)}",
        (f"{BLOCK_RUN}::test_reuse_returns_exactly_the_frozen_features_and_runs_no_block",
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
        "the second of a name takes the place of the first", IDENTITY, "bwcache_core/paper/run.py",
        "key = key._replace(occurrence=occurrence)", "pass",
        (f"{BLOCK_RUN}::test_the_same_condition_twice_in_an_evaluation_is_kept_apart",),
    ),
    Mutant(
        "features are found by their place in the batch", IDENTITY, "bwcache_core/paper/whole_stack.py",
        "kept = [stream.features.get() for stream in streams]",
        "kept = [stream.features.get() for stream in sorted(streams, key=lambda stream: stream.label)]",
        (f"{BLOCK_RUN}::test_every_condition_gets_its_own_features_however_calls_are_batched",
         f"{CONTRACT}::test_reused_steps_hand_the_last_computed_features_to_the_head[{EMBEDDED}]"),
    ),
    Mutant(
        "features of another shape fit", IDENTITY, "bwcache_core/paper/model_pass.py",
        "if not stream.entry or stream.entry != self._shapes(args, stream.entry):\n            return False",
        "pass",
        (f"{BLOCK_RUN}::test_another_token_count_is_computed_and_never_compared",),
    ),
    Mutant(
        "a condition that was away finds its old features", IDENTITY, "bwcache_core/paper/run.py",
        "if stream.evaluation == evaluation}", "}",
        (f"{BLOCK_RUN}::test_conditions_that_left_are_dropped",),
    ),
    Mutant(
        "no change is similar at threshold 0", OFF, "bwcache_core/paper/rules.py",
        "change < threshold", "change <= threshold",
        (f"{BLOCK_RUN}::test_threshold_0_computes_what_did_not_change_at_all",),
    ),
    Mutant(
        "hooks of other packs are left out", HOOKS, "nodes/attach_blocks.py",
        "return inner(block_args, extra) if inner else original(block_args)", "return original(block_args)",
        (f"{CONTRACT}::test_another_packs_block_hook_is_called_on_computed_steps[{EMBEDDED}-paper-before]",),
    ),
    Mutant(
        "a hook put over ours lets the input through", HOOKS, "bwcache_core/paper/model_pass.py",
        "if self._passing_through or ", "if ",
        (f"{BLOCK_RUN}::test_a_hook_laid_over_the_last_block_makes_the_model_run_again",
         f"{CONTRACT}::test_a_hook_laid_over_ours_on_the_last_block_makes_the_step_compute[{EMBEDDED}]"),
    ),
    Mutant(
        "a cancelled run keeps its tensors", LIFETIMES, "nodes/attach.py",
        "finally:  # a cancel is a BaseException",
        "finally:\n            if isinstance(__import__('sys').exc_info()[1], KeyboardInterrupt):\n                raise",
        (f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-inside a block-6-paper]",),
    ),
    Mutant(
        "a closed run keeps its tensors", LIFETIMES, "bwcache_core/paper/run.py",
        "stream.forget()\n        self.streams.clear()", "pass",
        (f"{BLOCK_RUN}::test_close_drops_every_tensor", f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-between steps-2-paper]"),
    ),
    Mutant(
        "what an error left behind is used", LIFETIMES, "bwcache_core/paper/run.py",
        "if self.position is not None:  # the last evaluation raised", "if False:  # the last evaluation raised",
        (f"{BLOCK_RUN}::test_after_an_exception_the_next_evaluation_computes",),
    ),
    Mutant(
        "the state of a run stays in the options", LIFETIMES, "nodes/attach.py",
        "            guider.model_options = plain_options\n", "",
        (f"{LIFETIME}::test_a_run_that_ends_leaves_nothing[{EMBEDDED}-paper]",),
    ),
    Mutant(
        "broken features are taken for sound ones", REASONS, "bwcache_core/paper/measurement.py",
        "if not (math.isfinite(checksum) and ", "if not (",
        (f"{BLOCK_RUN}::test_broken_features_are_a_fault_and_never_reused",
         f"{CONTRACT}::test_broken_features_are_reported_and_never_reused[{EMBEDDED}-paper-one token that is not sampled]"),
    ),
    Mutant(
        "no reason is given where nothing fits", REASONS, "bwcache_core/paper/run.py",
        'current.reason = "a condition holds no features that fit"', "pass",
        (f"{BLOCK_RUN}::test_a_condition_that_appears_in_a_batch_makes_the_batch_compute",),
    ),
    Mutant(
        "a batch reuses though one condition cannot", TOGETHER, "bwcache_core/paper/model_pass.py",
        "fits = all(self._fits(", "fits = any(self._fits(",
        (f"{BLOCK_RUN}::test_a_condition_that_appears_in_a_batch_makes_the_batch_compute",),
    ),
    Mutant(
        "the condition that changed least decides", TOGETHER, "bwcache_core/paper/measurement.py",
        "max((s.change for s in streams", "min((s.change for s in streams",
        (f"{BLOCK_RUN}::test_changes_by_hand",),
    ),
    Mutant(
        "no tail", ENDS, "bwcache_core/paper/rules.py",
        "position.step >= self.steps - tail", "position.step >= self.steps",
        ("tests/paper/test_rules.py::test_the_papers_own_run",
         "tests/paper/test_rules.py::test_no_tail_in_a_run_that_ends_before_sigma_0"),
    ),
    Mutant(
        "the sample is a view", INDICATOR, "bwcache_core/paper/similarity.py",
        "return hidden_BLD.flatten(1, -2).index_select(1, index_S)", "return hidden_BLD.flatten(1, -2)[:, : len(index_S)]",
        (f"{BLOCK_RUN}::test_sampled_features_survive_blocks_that_write_in_place",
         "tests/paper/test_similarity.py::test_sampled_tokens_are_a_copy_of_the_chosen_rows"),
    ),
    Mutant(
        "two evaluations of a step are compared", INDICATOR, "bwcache_core/paper/measurement.py",
        "return current.step != previous.step and ", "return ",
        (f"{BLOCK_RUN}::test_samplers_are_placed_by_sigma_not_by_count",),
    ),
    Mutant(
        "what D lacked is carried on with the wrong sign", CORRECTOR, "bwcache_core/corrector.py",
        "[lag, total((-1.0, wanted)), *errors]", "[lag, wanted, *errors]",
        ("tests/core/test_corrector.py::test_the_latent_comes_to_where_the_better_outputs_lead[multistep-0.7-half of it]",),
    ),
    Mutant(
        "an error of the model is taken for ours", FAILURES, "nodes/guard.py",
        "if self.in_model or ", "if ",
        (f"{LIFETIME}::test_a_run_that_breaks_off_leaves_nothing[{EMBEDDED}-out of memory-5-paper]",
         f"{FAULTS}::test_a_hook_of_another_pack_that_raises_ends_the_run_as_without_us[{EMBEDDED}-paper]"),
    ),
    Mutant(
        "a cancel in our own code is swallowed", FAILURES, "nodes/guard.py",
        "except Exception as error:", "except BaseException as error:",
        (f"{FAULTS}::test_a_cancel_anywhere_passes_and_leaves_nothing[{EMBEDDED}-paper]",),
    ),
    Mutant(
        "our own errors end the run", FAILURES, "nodes/guard.py",
        "self.state.give_up(error)", "raise",
        (f"{FAULTS}::test_an_error_of_the_cache_costs_the_run_its_cache_and_nothing_else[{EMBEDDED}-paper-store-3]",),
    ),
    # the forecast mode
    Mutant(
        "sigma is left out of the line", PLANNED, "bwcache_core/track.py",
        "else x - sigma * v for v in foretold", "else x - v for v in foretold",
        (LINED, f"{RUN}::test_a_reused_step_gets_the_line_through_the_last_two_outputs"),
    ),
    Mutant(
        "the line is flat", PLANNED, "bwcache_core/forecast.py",
        "weights = [share * weight for weight in lagrange_weights(nodes, target)]", "weights = [0.0 for _ in nodes[:-1]] + [share]",
        ("tests/core/test_forecast.py::test_a_forecast_goes_a_share_of_the_way",),
    ),
    Mutant(
        "every step computes where the plan is set aside once", PLANNED, "bwcache_core/run.py",
        "if self._planned(newest):", "if self._planned(newest) or trust.reach < math.inf:",
        (f"{RUN}::test_an_error_over_the_threshold_stops_reuse_until_it_falls",),
    ),
    Mutant(
        "the plan is not kept", PLANNED, "bwcache_core/run.py",
        "if self._planned(newest):", "if place.step % 2 == 0:",
        (f"{RUN}::test_the_planned_steps_compute_and_no_others", LINED),
    ),
    Mutant(
        "a run that computes all keeps all", PLANNED, "bwcache_core/run.py",
        "return len(self.plan.computes) < self.plan.steps and self.config.threshold > 0",
        "return self.config.threshold > 0",
        (f"{RUN}::test_speedup_1_is_bit_identical_and_keeps_nothing",
         f"{FORECAST}::test_speedup_1_is_bit_identical[{EMBEDDED}]"),
    ),
    Mutant(
        "the last latent is no copy", COPIES, "bwcache_core/run.py",
        "latent.clone(), denoised.clone(), away, change)", "latent, denoised, away, change)",
        (f"{FORECAST}::test_a_sampler_may_write_into_its_latent_and_into_what_it_was_given",),
    ),
    call_part("model", "Call((id(model), frames", "Call((0, frames", "model"),
    call_part("window", "Call((id(model), frames", "Call((id(model), None", "window"),
    call_part("shape", "tuple(x.shape), x.dtype", "(), x.dtype", "batch"),
    call_part("type", "tuple(x.shape), x.dtype", "tuple(x.shape), ''", "type"),
    call_part("device", "str(x.device), active", "'', active", "device"),
    call_part("active prompts", "str(x.device), active)", "str(x.device))", "two prompts"),
    Mutant(
        "a prompt never begins", CALLS, "nodes/attach.py",
        'if sigma > entry.get("timestep_start", math.inf) or ', "if ",
        (f"{ATTACH}::test_a_condition_acts_within_its_range",),
    ),
    Mutant(
        "a control net never ends", CALLS, "nodes/attach.py",
        "controls.append(last <= sigma <= first)", "controls.append(sigma <= first)",
        (f"{ATTACH}::test_each_control_net_of_a_chain_acts_within_its_range",),
    ),
    Mutant(
        "keyframes are not looked at", CALLS, "nodes/attach.py",
        "return (True, *controls, *begun)", "return (True, *controls)",
        (f"{ATTACH}::test_keyframes_of_hooks_that_have_begun_are_counted",),
    ),
    Mutant(
        "a second guidance pass takes the place of the first", CALLS, "bwcache_core/run.py",
        "key = (call.key, self._counts.get(call.key, 0))", "key = (call.key, 0)",
        (f"{RUN}::test_calls_of_the_same_key_are_told_apart_by_their_order",),
    ),
    Mutant(
        "fresh noise does not matter", TRUSTED, "bwcache_core/trust.py",
        "if not self.noise <= self.most_noise:", "if False:",
        (f"{RUN}::test_fresh_noise_in_every_step_computes_every_step",
         f"{RUN}::test_refining_at_one_sigma_with_fresh_noise_computes"),
    ),
    Mutant(
        "a forecast that errs is trusted", TRUSTED, "bwcache_core/trust.py",
        "if share > 1.0:", "if False:",
        (f"{RUN}::test_an_error_over_the_threshold_stops_reuse_until_it_falls",
         "tests/core/test_trust.py::test_an_objection_names_the_error_it_expects"),
    ),
    Mutant(
        "a sampler that went back is followed", TRUSTED, "bwcache_core/run.py",
        "if jump > trust.most_noise and self._rose(place.sigma, seen.place.sigma):", "if False:",
        (f"{RUN}::test_sigma_that_rose_on_fresh_noise_computes_and_begins_a_new_line",),
    ),
    Mutant(
        "an evaluation without a call is decided", TRUSTED, "bwcache_core/run.py",
        "self._jump, self._reuse, self._ended = jump, None, least <= 0",
        "self._ended = False; self._jump, self._reuse = jump, self._decide(jump)",
        (f"{RUN}::test_an_evaluation_without_a_call_changes_nothing",),
    ),
    Mutant(
        "a given part of the latent counts", TRUSTED, "bwcache_core/track.py",
        "return latent * self.mask.to(latent)", "return latent",
        (f"{RUN}::test_what_a_mask_gives_away_does_not_count",),
    ),
    Mutant(
        "the sound drowns in the picture", TRUSTED, "bwcache_core/track.py",
        "split = self.parts if sum(self.parts) == latent.shape[-1] else (latent.shape[-1],)", "split = (latent.shape[-1],)",
        (f"{RUN}::test_the_worst_part_of_a_packed_latent_counts",),
    ),
    Mutant(
        "training is cached", REASONS, "bwcache_core/run.py",
        "if any(d is not None and d.requires_grad for d in denoised):", "if False:",
        (f"{RUN}::test_a_model_under_gradients_gets_no_cache",),
    ),
    Mutant(
        "zeros as flags count as steps", REASONS, "nodes/attach.py",
        "while len(kept) > 2 and kept[0] <= 0 < max(kept):", "while False:",
        (f"{ATTACH}::test_zeros_as_flags_are_left_out",),
    ),
    Mutant(
        "the options of a forecast run stay", LIFETIMES, "nodes/attach.py",
        "            guider.model_options = plain_options\n", "",
        (f"{ENDINGS}::test_a_run_that_ends_leaves_nothing_and_a_guider_used_twice_starts_anew[{EMBEDDED}]",),
    ),
    Mutant(
        "a closed forecast run keeps its tensors", LIFETIMES, "bwcache_core/run.py",
        "        finally:  # reading waits for the group, which may be broken\n            self._drop()\n",
        "        finally:\n",
        (f"{RUN}::test_closing_drops_every_tensor",
         f"{ENDINGS}::test_a_run_that_breaks_off_at_any_evaluation_leaves_nothing[{EMBEDDED}-cancel]"),
    ),
    Mutant(
        "a cancelled forecast run is not closed", LIFETIMES, "nodes/attach.py",
        "finally:  # a cancel is a BaseException",
        "finally:\n            if isinstance(__import__('sys').exc_info()[1], KeyboardInterrupt):\n                raise",
        (f"{ENDINGS}::test_a_run_that_breaks_off_at_any_evaluation_leaves_nothing[{EMBEDDED}-cancel]",),
    ),
    Mutant(
        "an error of the model is taken for the forecast's", FAILURES, "nodes/guard.py",
        "if self.in_model or ", "if ",
        (f"{ENDINGS}::test_an_error_of_the_model_and_of_other_packs_passes_untouched[{EMBEDDED}]",),
    ),
    Mutant(
        "a cancel in the forecast's own code is swallowed", FAILURES, "nodes/guard.py",
        "except Exception as error:", "except BaseException as error:",
        (f"{ENDINGS}::test_a_cancel_anywhere_in_our_own_code_passes_and_leaves_nothing[{EMBEDDED}]",),
    ),
    Mutant(
        "an error of the forecast ends the run", FAILURES, "nodes/guard.py",
        "self.state.give_up(error)", "raise",
        (f"{ENDINGS}::test_an_error_of_the_cache_costs_the_run_its_cache_and_nothing_else[{EMBEDDED}-line-2]",),
    ),
    Mutant(
        "a sampler is known by its name", CORRECTOR, "nodes/sampler_response.py",
        'return defined_in(function) == getattr(loaded, "__file__", "")', "return True",
        (f"{SAMPLER}::test_a_sampler_is_known_by_the_object_not_by_its_name",),
    ),
    Mutant(
        "every sampler is asked", CORRECTOR, "nodes/sampler_response.py",
        "if not is_known(function) or not 2 <= len(sigmas) <= MOST_STEPS + 1:", "if function is None or len(sigmas) < 2:",
        (f"{ATTACH}::test_only_a_sampler_that_is_known_is_corrected_and_only_where_something_is_reused",),
    ),
    Mutant(
        "noise is taken for what the sampler does", CORRECTOR, "nodes/sampler_response.py",
        " and not any(row[-1] for row in gains)", "",
        (f"{SAMPLER}::test_a_known_sampler_that_adds_noise_or_has_no_numbers_is_not_corrected[churning]",),
    ),
    Mutant(
        "a sampler is asked with the user's sigmas", CORRECTOR, "nodes/sampler_response.py",
        "torch.float32, copy=True)", "torch.float32)",
        (f"{SAMPLER}::test_nothing_of_the_users_is_written_into",),
    ),
    Mutant(
        "asking a sampler draws from the run's random numbers", CORRECTOR, "nodes/sampler_response.py",
        "with torch.random.fork_rng(devices=[]):", "if True:",
        (f"{SAMPLER}::test_random_numbers_are_put_back",),
    ),
]

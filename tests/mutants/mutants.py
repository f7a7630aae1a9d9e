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
]

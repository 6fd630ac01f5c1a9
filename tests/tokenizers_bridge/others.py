"""The tests of other aligners, by name, and which test here asks the same; "no: " and the reason where none does.

TRL's are those of tests/experimental/test_gold_trainer.py, NeMo RL's of tests/unit/algorithms/x_token,
tests/unit/data/test_cross_tokenizer_collate.py and tests/unit/tools/x_token, tokenkit's lie in its modules.
"""

_IMAGES = "no: images, which this package does not know"
_TRAINER = "no: how TRL's trainer is set up or fed"
_FILES = "no: a projection is a table worked out in memory, not a file"
_SHARDS = "no: logits are not sharded here"

GOLD = {
    "test_chatml_collator_preserves_completion_llama": "test_gold_a_prompt_and_its_completion_in_padded_rows",
    "test_chatml_collator_preserves_completion_llama_countdown": "test_gold_a_prompt_and_its_completion_in_padded_rows",
    "test_chatml_collator_preserves_completion_smollm": "test_gold_a_prompt_and_its_completion_in_padded_rows",
    "test_process_completions_to_buffer_left_pads_prompt_ids": "no: a Completion has neither prompt nor padding",
    "test_generate_on_policy_for_slices_uses_prompt_attention_mask_for_vllm_prompts": _TRAINER,
    "test_generate_on_policy_for_slices_reconstructs_prompt_with_special_tokens": _TRAINER,
    "test_on_policy_prompt_text_reflects_truncated_prompt": "no: prompts are never cut",
    "test_non_vllm_on_policy_*": "no: prompts are never cut",
    "test_gold_trainer_init_*": _TRAINER,
    "test_chatml_collator_truncates_keeping_completion_end": (
        "test_a_completion_that_was_cut_in_front_aligns_from_its_cut_on"
    ),
    "test_chatml_collator_raises_when_completion_fills_window": _TRAINER,
    "test_prepared_tokenized_rows_keep_completion_after_truncation": (
        "test_a_completion_that_was_cut_in_front_aligns_from_its_cut_on"
    ),
    "test_prepared_tokenized_rows_rebase_byte_offsets_when_truncation_eats_into_completion": (
        "test_a_completion_that_was_cut_in_front_aligns_from_its_cut_on"
    ),
    "test_prepare_dataset_messages_uses_last_assistant_turn": (
        "test_prompt_and_completion_are_the_finished_conversation_or_the_difference_is_named"
    ),
    "test_alignment_groups_cover_all_tokens": "test_gold_groups_cover_all_tokens_of_both_sides",
    "test_on_policy_completion_byte_offsets_match_encode_offsets": (
        "test_ends_of_sampled_ids_are_the_offsets_that_encoding_gives"
    ),
    "test_merge_probabilities_multiplies_split_tokens_*": "test_a_split_token_is_merged_by_the_chain_rule",
    "test_compute_distillation_loss_bayesian_shifts_answer_logits": "test_a_split_token_is_merged_by_the_chain_rule",
    "test_compute_distillation_loss_bayesian_skips_zero_start_span_*": (
        "test_an_answer_that_begins_a_row_has_no_place_before_its_first_chunk"
    ),
    "test_compute_distillation_loss_bayesian_zero_loss_when_only_token_dropped": (
        "test_an_answer_of_that_chunk_alone_costs_nothing"
    ),
    "test_uldloss_positional_mode_does_not_require_byte_offsets": "test_students_of_other_families_learn_from_qwen",
    "test_initialize_vocabulary_mapping_contains_common_tokens": "test_gold_vocabularies_share_the_common_tokens",
    "test_get_start_and_size_answers_skips_prompt_tokens": "test_gold_answers_are_where_labels_are",
    "test_generate_on_policy_outputs_masks_prompt*": "test_gold_a_prompt_and_its_completion_in_padded_rows",
    "test_generate_on_policy_outputs_pad_equals_eos_keeps_eos": (
        "test_gold_a_prompt_and_its_completion_in_padded_rows"
    ),
    "test_generate_on_policy_outputs_without_eos_id_keeps_full_completion": (
        "test_the_stop_token_is_there_exactly_where_the_author_stopped"
    ),
    "test_build_teacher_inputs_pad_equals_eos_keeps_terminating_eos": (
        "test_gold_a_prompt_and_its_completion_in_padded_rows"
    ),
    "test_decode_completion_texts_from_labels_keeps_eos_when_pad_equals_eos": (
        "test_gold_a_prompt_and_its_completion_in_padded_rows"
    ),
    "test_generalized_jsd_loss_accepts_probability_inputs": "no: GOLD's own loss, which stays GOLD's",
    "test_uldloss_handles_*_student_qwen_teacher_sequence": "test_students_of_other_families_learn_from_qwen",
    "test_uldloss_hybrid_config_beta_zero": "test_students_of_other_families_learn_from_qwen",
    "test_*vlm*": _IMAGES,
    "test_model_forward_kwargs_preserve_processor_tensor_fields": _IMAGES,
    "test_jsd_liger_text_train_step_smoke": _TRAINER,
    "TestGOLDTrainerLoss": _TRAINER,
}

NEMO = {
    "test_T1_align_dp_is_addressable_from_token_aligner_namespace": "no: how their module is cut",
    "test_T2_canonicalize_sequence_preserves_length_for_clean_inputs": "no: nothing is made canonical; bytes are",
    "test_T2_canonicalization_artifact_merge_emits_remappable_ranges": (
        "test_nemo_tokens_that_end_inside_a_character_are_one_chunk_on_their_own_places"
    ),
    "test_T3_padding_tokens_receive_sentinel_chunk_id": "test_nemo_padding_is_in_no_chunk_and_no_chunk_is_of_padding",
    "test_T4_*_signature_is_explicit": "no: how their module is cut",
    "test_T5_alignment_pair_dataclass_exists_with_expected_fields": "no: how their module is cut",
    "test_T6_artifact_merge_remaps_spans_to_original_axis": (
        "test_nemo_tokens_that_end_inside_a_character_are_one_chunk_on_their_own_places"
    ),
    "test_T6_byte_fallback_merge_remaps_spans_to_original_axis": (
        "test_nemo_tokens_that_end_inside_a_character_are_one_chunk_on_their_own_places"
    ),
    "test_align_end_to_end_shapes_are_consistent": (
        "test_nemo_sides_of_different_widths_keep_their_own_and_empty_chunks_are_zero"
    ),
    "TestAlignmentFromFlatBatch": "no: how their batches are packed",
    "TestChunkAverageLogProbs": "test_nemo_sides_of_different_widths_keep_their_own_and_empty_chunks_are_zero",
    "TestValidChunkMask": "test_nemo_coverage_that_differs_is_not_correct_on_either_side",
    "TestParseProjectionFile": _FILES,
    "TestGetSparseProjectionMatrix": _FILES,
    "test_negative_teacher_sentinels_dropped": "test_nemo_of_several_ids_with_the_same_bytes_one_is_taken",
    "TestGetTopkProjection": _FILES,
    "TestBuildExactTokenMap": "test_nemo_of_several_ids_with_the_same_bytes_one_is_taken",
    "TestLocalizeAlignment": _SHARDS,
    "TestCollectOverlappingTeacherShards": _SHARDS,
    "TestZeroCopyTeacherLogits": _SHARDS,
    "TestAssembleTeacherLogitsFromShards": _SHARDS,
    "XtokenShardTestActor": _SHARDS,
    "TestSliceSparseProjectionCols": _SHARDS,
    "TestAssertTeacherStudentBatchGrid": _SHARDS,
    "TestAssertXtokenIpcNodeLocal": _SHARDS,
    "TestPadDistillationValBatch": "no: how their batches are packed",
    "TestCollatorOutputKeys": "no: how their batches are packed",
    "TestCollatorShapes": "test_nemo_sides_of_different_widths_keep_their_own_and_empty_chunks_are_zero",
    "TestCollatorTruncation": "test_a_completion_that_was_cut_in_front_aligns_from_its_cut_on",
    "TestCollatorSequenceDivisibility": "test_nemo_padding_is_in_no_chunk_and_no_chunk_is_of_padding",
    "TestCollatorPadTokenFallback": "test_gold_a_prompt_and_its_completion_in_padded_rows",
    "TestCollatorReadsMessageLog": "no: how their data sets are read",
    "TestGenerateProjectionMapChunk": "no: ids pair by their bytes, not by how alike embeddings are",
    "TestAddMultitokenMappings": "no: a token that the reader has not is lost, and said to be, not guessed at",
    "TestSortAndCutProjectionMatrix": _FILES,
    "TestSortAndCutAutoPreserveFromMetadata": _FILES,
    "TestReapplyExactMap": "test_nemo_of_several_ids_with_the_same_bytes_one_is_taken",
    "test_projection_tools, the rest": _FILES,
}

TOKENKIT = {
    "align.test_get_alignment_indices": "test_tokenkit_chunks_around_control_tokens",
    "byteify.test_byte_level_conversion": "test_tokenkit_a_vocabulary_of_bytes_has_a_token_for_each",
    "byteify.test_special_token_substitution_gemma": (
        "test_tokenkit_turn_markers_of_another_family_are_no_text_of_this_one"
    ),
    "byteify.test_special_token_substitution_qwen": (
        "test_tokenkit_turn_markers_of_another_family_are_no_text_of_this_one"
    ),
    "utils.test_encode_prompt": "test_prompt_and_completion_are_the_finished_conversation_or_the_difference_is_named",
    "utils.test_expand_input_ids": "no: embeddings of longer tokens over bytes, for tokenizer transfer",
    "data.test_load_tulu3": "no: a data set of the hub",
}

"""The fault catalogue: what may go wrong, the invariant that must hold, and the tests that hold it.

Tests in this folder say which faults they inject with `@pytest.mark.fault(number, …)`. Those that stand
with what they test are named here. A fault that nobody injects stays in the table as not covered.
The invariants I1 to I12 are in docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`held_by`: node ids (file::function) of tests elsewhere."""

    number: int
    injected: str
    invariant: str
    held_by: tuple[str, ...] = ()


_WEBHOOK = "tests/web/test_stripe_webhook.py::"
_SIGNATURE = "tests/web/test_signature.py::"
_SERVER = "tests/web/test_server.py::"
_ENGINE = "tests/engine/test_faults.py::"
_LIFE = "tests/engine/test_life.py::"
_PURGE = "tests/engine/test_purge.py::"
_RETURN = "tests/engine/test_return.py::"
_ORDER = "tests/engine/test_order.py::"
_BROKER = "tests/engine/test_broker_lost.py::"
_POOL = "tests/engine/test_pool.py::"
_TERRAFORM = "tests/terraform/test_faults.py::"
_RECOVERY = "tests/terraform/test_recovery.py::"
_TERRAFORM_PORT = "tests/provider/test_terraform.py::"
_CLOUDFLARE = "tests/provider/test_custom_hostnames_errors.py::"
_HOSTNAMES = "tests/provider/test_custom_hostnames.py::"
_PAGE = "tests/acceptance/test_paid_to_page.py::"
_SECRETS = "tests/acceptance/test_secrets_stay_put.py::"
_POOLS = "tests/dataplane/test_pools_faults.py::"

EVENTS = (
    Fault(
        1,
        "an event delivered five times at once",
        "I2",
        (
            f"{_ORDER}test_one_event_five_times_at_once_is_one_tenant",
            f"{_WEBHOOK}test_five_deliveries_at_once_make_one_row_and_one_wake_up",
        ),
    ),
    Fault(
        2,
        "events shuffled and doubled under 20 seeds",
        "I12",
        (f"{_ORDER}test_fifty_tenants_in_any_order_end_alike",),
    ),
    Fault(3, "deleted before created", "I12", (f"{_ORDER}test_deleted_before_created_resurrects_nobody",)),
    Fault(4, "events hours late, and some never", "I12"),
    Fault(5, "an old signature replayed", "I1", (f"{_SIGNATURE}test_an_old_signature_replayed_is_refused",)),
    Fault(6, "a signature from the future", "I1", (f"{_SIGNATURE}test_hole_a_time_in_the_future",)),
    Fault(
        7,
        "two signing secrets live, then one retired",
        "I1",
        (
            f"{_WEBHOOK}test_both_secrets_are_live_while_one_is_rolled",
            f"{_SIGNATURE}test_a_secret_that_has_been_retired_no_longer_signs",
        ),
    ),
    Fault(
        8,
        "signatures and bodies that break parsers",
        "I1",
        (
            f"{_SIGNATURE}test_hole_a_signature_that_is_not_ascii",
            f"{_SIGNATURE}test_hole_a_body_that_is_not_utf_8",
            f"{_SIGNATURE}test_hole_signed_json_that_is_no_object",
            f"{_SIGNATURE}test_hole_deep_nesting",
        ),
    ),
    Fault(
        9,
        "signed text that PostgreSQL refuses",
        "I1",
        (
            f"{_WEBHOOK}test_what_is_signed_and_unusable_is_kept_and_parked",
            f"{_SIGNATURE}test_hole_text_that_postgresql_refuses",
        ),
    ),
    Fault(
        10,
        "a body without an end, clients that stall",
        "I10",
        (
            f"{_SERVER}test_a_chunked_body_without_an_end_is_cut_at_the_limit",
            f"{_SERVER}test_clients_that_stall_are_cut_off",
            f"{_SERVER}test_clients_that_stall_hold_no_thread",
        ),
    ),
    Fault(11, "thousands of events in one burst", "I1 I10"),
    Fault(
        12,
        "a handler that always fails",
        "I10",
        (f"{_ENGINE}test_an_event_that_always_fails_is_parked_and_the_others_go_on",),
    ),
    Fault(
        13,
        "PostgreSQL down at the webhook",
        "I1",
        (
            f"{_WEBHOOK}test_a_registry_that_is_down_answers_503_and_notifies_nobody",
            f"{_WEBHOOK}test_a_registry_that_comes_back_is_used_again",
        ),
    ),
    Fault(14, "web killed between commit and answer", "I1"),
    Fault(
        15,
        "a webhook that never comes",
        "I4",
        (
            "tests/engine/test_compare.py::test_a_customer_whose_webhook_never_came_is_provisioned",
            "tests/engine/test_compare.py::test_a_cancellation_that_was_missed_is_carried_out",
        ),
    ),
    Fault(16, "Stripe answers 429 and 500", "I12"),
    Fault(
        17,
        "a test-mode event at a live endpoint",
        "I1",
        (f"{_WEBHOOK}test_an_event_of_the_other_mode_is_parked",),
    ),
)

WORKERS = (
    Fault(
        18,
        "a worker killed before and after every outside call",
        "I2 I4 I5",
        (
            "tests/engine/test_crash_at_every_call.py"
            "::test_every_crash_point_converges_without_orphan_or_duplicate",
        ),
    ),
    Fault(19, "every step done twice", "I2"),
    Fault(20, "an error before and after every step", "I4"),
    Fault(21, "a random worker killed every 5 s over 10,000 events", "I1 I2 I4 I5"),
    Fault(
        22,
        "a worker stopped (SIGSTOP) past its lease",
        "I3",
        (f"{_ENGINE}test_a_superseded_worker_is_refused_and_does_no_harm",),
    ),
    Fault(
        23,
        "eight claimers of one operation",
        "I3",
        ("tests/store/test_job.py::test_only_one_of_many_claimers_gets_it",),
    ),
    Fault(
        24,
        "FLUSHALL again and again",
        "I4",
        (f"{_BROKER}test_twenty_tenants_while_redis_is_flushed_again_and_again",),
    ),
    Fault(
        25,
        "Redis dead",
        "I1 I4",
        (
            f"{_WEBHOOK}test_a_broker_that_is_down_costs_nothing_but_the_wake_up",
            f"{_BROKER}test_a_broker_that_is_killed_and_comes_back_empty",
        ),
    ),
    Fault(26, "Redis full", "I1 I4"),
    Fault(27, "Redis silent", "I1 I4"),
    Fault(28, "PostgreSQL restarted -m immediate every 5 s", "I1 I4"),
    Fault(29, "every registry session terminated every second", "I4"),
    Fault(30, "max_connections reached", "I4"),
    Fault(31, "registry connections cut in the middle, commits unanswered", "I2 I4"),
    Fault(32, "a worker's clock ten minutes off", "I3 I4"),
    Fault(33, "the disk of Terraform's work folder is full", "I4 I5"),
    Fault(34, "an operation that kills its worker", "I10"),
    Fault(35, "SIGTERM in the middle of an apply", "I4"),
    Fault(36, "begun by one version, finished by another", "I4"),
    Fault(37, "a step that this version does not know", "I4"),
)

TERRAFORM = (
    Fault(
        38,
        "kill -9 of terraform in the middle of a cluster",
        "I2 I6",
        (f"{_TERRAFORM}test_a_terraform_killed_in_mid_cluster_is_followed_by_one_that_adopts",),
    ),
    Fault(
        39,
        "the worker killed, terraform alive",
        "I3",
        (
            f"{_TERRAFORM}test_a_killed_workers_terraform_saves_and_its_cluster_is_untainted",
            f"{_PAGE}test_a_worker_killed_in_the_middle_is_succeeded",
        ),
    ),
    Fault(
        40,
        "a foreign state lock",
        "I3",
        (f"{_TERRAFORM_PORT}test_a_strangers_lock_is_waited_for_and_then_brought_to_a_person",),
    ),
    Fault(41, "our own stale lock", "I4", (f"{_TERRAFORM_PORT}test_a_lock_of_our_own_dead_run_is_broken",)),
    Fault(
        42,
        "the state backend gone at the end of an apply",
        "I5",
        (f"{_TERRAFORM}test_a_state_that_could_not_be_saved_is_pushed_by_the_next_run",),
    ),
    Fault(
        43,
        "a state deleted or cut",
        "I2",
        (
            f"{_RECOVERY}test_a_damaged_state_is_put_aside_and_kept",
            f"{_TERRAFORM_PORT}test_what_a_killed_run_made_is_adopted_and_not_made_again",
        ),
    ),
    Fault(44, "AWS answers 500 and throttles", "I4"),
    Fault(45, "AWS made it and the answer is lost", "I2"),
    Fault(
        46,
        "a tainted cluster",
        "I6",
        (
            f"{_TERRAFORM}test_a_killed_workers_terraform_saves_and_its_cluster_is_untainted",
            f"{_TERRAFORM}test_what_would_replace_a_secret_is_refused_before_anything_happens",
        ),
    ),
    Fault(
        47,
        "a secret that waits for its deletion",
        "I2",
        (
            "tests/provider/test_secrets.py::test_a_secret_that_waits_for_its_deletion_comes_back_whole",
            "tests/terraform/test_inventory.py"
            "::test_a_secret_in_its_deletion_window_counts_as_gone_until_restored",
        ),
    ),
    Fault(
        48,
        "the snapshot's name is taken by an earlier try",
        "I6",
        (
            "tests/provider/test_snapshots.py::test_a_snapshot_is_begun_once_and_becomes_available",
            "tests/localcloud/test_aws_rds.py"
            "::test_a_taken_snapshot_name_stops_the_deletion_before_anything_is_lost",
        ),
    ),
    Fault(
        49,
        "the account's quota used up",
        "I10",
        (f"{_POOL}test_a_customer_who_meets_the_quota_is_told_apart_and_others_go_on",),
    ),
    Fault(50, "a role that IAM does not show yet", "I4"),
    Fault(51, "the provider killed under terraform", "I5"),
    Fault(
        52,
        "changed by hand",
        "I6",
        (
            f"{_LIFE}test_reprovision_mends_what_was_changed_by_hand",
            f"{_LIFE}test_a_preview_says_what_would_be_done_and_does_nothing",
        ),
    ),
    Fault(
        53,
        "terraform hangs",
        "I10",
        (
            "tests/terraform/test_process.py::test_a_child_that_does_not_listen_is_killed",
            "tests/terraform/test_process.py::test_the_time_is_bounded",
        ),
    ),
    Fault(
        54,
        "a search for secrets in every file, state, table and argument",
        "I9",
        tuple(
            f"{_SECRETS}test_in_no_{place}"
            for place in (
                "file_of_the_run",
                "terraform_state",
                "table_of_the_registry",
                "key_of_redis",
                "command_line",
            )
        ),
    ),
)

CLOUDFLARE = (
    Fault(
        55,
        "Cloudflare answers 429, 5xx or not at all",
        "I4",
        (
            f"{_CLOUDFLARE}test_each_status_names_who_acts_next",
            f"{_CLOUDFLARE}test_the_real_limit_asks_for_the_whole_window",
        ),
    ),
    Fault(
        56,
        "a hostname created and the answer lost",
        "I2",
        (
            f"{_CLOUDFLARE}test_a_created_hostname_whose_answer_got_lost_is_adopted",
            f"{_HOSTNAMES}test_what_is_not_ours_is_never_adopted",
        ),
    ),
    Fault(57, "deleting what is gone", "I5", (f"{_HOSTNAMES}test_deleting_twice_is_success",)),
    Fault(
        58,
        "a validation that never ends",
        "I4",
        (
            f"{_HOSTNAMES}test_a_stuck_validation_shows_why_and_stays_pending",
            f"{_LIFE}test_a_domain_that_is_not_verified_holds_nothing_up",
        ),
    ),
)

LIFE = (
    Fault(59, "cancelled at every outside call", "I4 I5"),
    Fault(60, "cancelled while it is being made", "I4", (f"{_LIFE}test_cancelled_while_it_is_being_made",)),
    Fault(61, "fifty changes of plan at once", "I10", (f"{_LIFE}test_a_storm_of_changes_is_one_more_pass",)),
    Fault(
        62,
        "back within the retention",
        "I6",
        ("tests/engine/test_return.py::test_who_pays_again_finds_its_rows_its_name_and_its_host",),
    ),
    Fault(
        63,
        "back after the purge",
        "I7",
        (f"{_RETURN}test_who_comes_back_after_the_purge_begins_anew",),
    ),
    Fault(64, "a hundred sign-ups for one slug", "I2", (f"{_LIFE}test_one_slug_for_a_hundred_sign_ups",)),
    Fault(
        65,
        "names that differ behind the 63rd byte",
        "I7",
        ("tests/provider/test_databases_hardening.py::test_identifiers_fit",),
    ),
    Fault(
        66,
        "one failing migration of five hundred",
        "I10",
        ("tests/migrations/test_five_hundred.py::test_one_bad_database_of_five_hundred",),
    ),
    Fault(
        67,
        "killed in the middle of a fleet migration",
        "I4",
        ("tests/migrations/test_killed_workers.py::test_killed_workers_leave_nobody_out_and_repeat_nothing",),
    ),
    Fault(
        68,
        "rotation under load",
        "I8",
        ("tests/engine/test_rotation_under_load.py::test_no_request_fails_while_logins_are_rotated",),
    ),
    Fault(69, "suspended under load, the channel of invalidations cut", "I4"),
    Fault(
        70,
        "control plane, Redis and AWS down",
        "I8",
        ("tests/dataplane/test_soak.py::test_with_everything_stopped_every_known_tenant_answers",),
    ),
    Fault(
        71,
        "a herd on a cold cache",
        "I10",
        ("tests/dataplane/test_resolver_load.py::test_a_herd_on_a_cold_host_is_one_read",),
    ),
    Fault(
        72,
        "one tenant's database a black hole",
        "I10",
        (f"{_POOLS}test_one_dead_database_holds_up_no_other",),
    ),
    Fault(
        73,
        "more tenants than connections",
        "I10",
        (
            "tests/dataplane/test_fleet.py::test_threads_and_members_at_once_never_exceed_it",
            "tests/dataplane/test_soak.py::test_many_threads_over_many_tenants",
        ),
    ),
    Fault(
        74,
        "a deletion that nobody approved",
        "I6",
        (
            f"{_TERRAFORM_PORT}test_nothing_is_destroyed_unapproved_and_all_that_is_approved_is",
            f"{_PURGE}test_nobody_orders_a_purge_alone_early_or_of_something_else",
            f"{_PURGE}test_an_approval_of_what_has_changed_since_is_refused",
        ),
    ),
    Fault(
        75,
        "an audit row edited, removed or slipped in",
        "I11",
        tuple(
            f"tests/store/test_audit.py::test_{what}_is_found"
            for what in ("an_edited_row", "a_removed_row", "a_row_slipped_in")
        ),
    ),
)

FAULTS = {fault.number: fault for fault in (*EVENTS, *WORKERS, *TERRAFORM, *CLOUDFLARE, *LIFE)}

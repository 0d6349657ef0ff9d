//! The hand-made part of the allow-list: every function whose class does not follow from
//! "immutable or stable, and executable by everybody", each with its reason.
//!
//! The reason completes the sentence "calls f, which ..".

use crate::classify::StatementClass::{
    self, Admin, Code, Export, Read, SensitiveRead, ServerIo, Settings, Write,
};

/// A name, or the start of names when it ends in `*`; its class; what it does.
pub(super) type Exception = (&'static str, StatementClass, &'static str);

/// The first that matches counts.
pub(super) const EXCEPTIONS: &[Exception] = &[
    // Files, programs and the network, by whatever schema they were installed in.
    ("pg_read_file*", ServerIo, "reads files of the server"),
    ("pg_read_binary_file", ServerIo, "reads files of the server"),
    ("pg_stat_file", ServerIo, "looks at files of the server"),
    ("pg_ls_*", ServerIo, "lists directories of the server"),
    ("pg_logdir_ls", ServerIo, "lists directories of the server"),
    ("pg_file_*", ServerIo, "writes, renames or removes files of the server"),
    ("pg_current_logfile", ServerIo, "tells where the server's log file is"),
    ("lo_import", ServerIo, "reads files of the server"),
    ("lo_export", ServerIo, "writes files of the server"),
    ("dblink*", ServerIo, "connects to another server"),
    ("pg_get_loaded_modules", ServerIo, "lists libraries on the server's disk"),
    // SQL given as a string: nobody can see from the statement what will run.
    ("query_to_xml*", Code, "runs SQL given as a string"),
    ("ts_stat", Code, "runs SQL given as a string"),
    ("ts_rewrite", Code, "runs SQL given as a string, in one of its forms"),
    // Input functions that are told the type by its OID: they run a domain's checks, which may be
    // anybody's code, and nothing in the statement names the domain.
    ("domain_in", Code, "makes a value of a type that only the server will know"),
    ("record_in", Code, "makes a value of a type that only the server will know"),
    ("array_in", Code, "makes a value of a type that only the server will know"),
    ("range_in", Code, "makes a value of a type that only the server will know"),
    ("multirange_in", Code, "makes a value of a type that only the server will know"),
    ("pg_input_is_valid", Code, "makes a value of a type that only the server will know"),
    ("pg_input_error_info", Code, "makes a value of a type that only the server will know"),
    ("fmgr_*_validator", Code, "loads and checks somebody's code"),
    ("cursor_to_xml*", Export, "takes out the rows of a cursor"),
    ("table_to_xml*", Export, "takes out a whole table"),
    ("schema_to_xml*", Export, "takes out a whole schema"),
    ("database_to_xml*", Export, "takes out the whole database"),
    // Settings; its arguments decide (see `settings`).
    ("set_config", Settings, "changes a setting"),
    // The server and other people's sessions.
    ("pg_cancel_backend", Admin, "interrupts another session"),
    ("pg_terminate_backend", Admin, "ends another session"),
    ("pg_reload_conf", Admin, "reloads the server's configuration"),
    ("pg_rotate_logfile*", Admin, "rotates the server's log"),
    ("pg_promote", Admin, "promotes a standby"),
    ("pg_switch_wal", Admin, "switches the write-ahead log"),
    ("pg_create_restore_point", Admin, "writes to the write-ahead log"),
    ("pg_logical_emit_message", Admin, "writes to the write-ahead log"),
    ("pg_log_*", Admin, "writes to the server's log"),
    ("pg_wal_replay_pause", Admin, "steers recovery"),
    ("pg_wal_replay_resume", Admin, "steers recovery"),
    ("pg_wal_summary_contents", Admin, "reads the write-ahead log's summaries"),
    ("pg_available_wal_summaries", Admin, "reads the write-ahead log's summaries"),
    ("pg_get_wal_summarizer_state", Admin, "reads the write-ahead log's summaries"),
    ("pg_start_backup", Admin, "steers a backup"),
    ("pg_stop_backup", Admin, "steers a backup"),
    ("pg_backup_*", Admin, "steers a backup"),
    ("pg_create_logical_replication_slot", Admin, "changes replication slots"),
    ("pg_create_physical_replication_slot", Admin, "changes replication slots"),
    ("pg_copy_logical_replication_slot", Admin, "changes replication slots"),
    ("pg_copy_physical_replication_slot", Admin, "changes replication slots"),
    ("pg_drop_replication_slot", Admin, "changes replication slots"),
    ("pg_replication_slot_advance", Admin, "changes replication slots"),
    ("pg_sync_replication_slots", Admin, "changes replication slots"),
    ("pg_logical_slot_*", Admin, "reads or advances a replication slot"),
    ("pg_replication_origin_*", Admin, "changes replication origins"),
    ("pg_show_replication_origin_status", Admin, "is for superusers"),
    ("pg_stat_reset*", Admin, "resets the server's statistics"),
    ("pg_restore_relation_stats", Admin, "replaces the planner's statistics"),
    ("pg_restore_attribute_stats", Admin, "replaces the planner's statistics"),
    ("pg_clear_relation_stats", Admin, "removes the planner's statistics"),
    ("pg_clear_attribute_stats", Admin, "removes the planner's statistics"),
    ("pg_import_system_collations", Admin, "changes the catalogue"),
    ("pg_extension_config_dump", Admin, "changes the catalogue"),
    ("pg_nextoid", Admin, "is for repairs of the catalogue"),
    ("pg_stop_making_pinned_objects", Admin, "is for initdb"),
    ("binary_upgrade_*", Admin, "is for pg_upgrade"),
    ("brin_summarize_*", Admin, "maintains an index"),
    ("brin_desummarize_range", Admin, "maintains an index"),
    ("gin_clean_pending_list", Admin, "maintains an index"),
    ("pg_get_backend_memory_contexts", Admin, "is for superusers"),
    ("pg_get_shmem_allocations*", Admin, "is for superusers"),
    ("pg_get_aios", Admin, "is for superusers"),
    ("pg_config", Admin, "is for superusers"),
    // Secrets.
    ("pg_hba_file_rules", SensitiveRead, "reads the server's access rules"),
    ("pg_ident_file_mappings", SensitiveRead, "reads the server's access rules"),
    ("pg_show_all_file_settings", SensitiveRead, "reads the server's configuration files"),
    // Volatile, and harmless.
    ("random", Read, "is volatile only because it differs each time"),
    ("random_normal", Read, "is volatile only because it differs each time"),
    ("setseed", Read, "touches this session only"),
    ("array_sample", Read, "is volatile only because it differs each time"),
    ("array_shuffle", Read, "is volatile only because it differs each time"),
    ("gen_random_uuid", Read, "is volatile only because it differs each time"),
    ("uuidv4", Read, "is volatile only because it differs each time"),
    ("uuidv7", Read, "is volatile only because it differs each time"),
    ("clock_timestamp", Read, "reads the clock"),
    ("timeofday", Read, "reads the clock"),
    // timezone(text, timetz) was volatile up to Postgres 15.
    ("timezone", Read, "converts a time"),
    ("current_query", Read, "shows this very statement"),
    // Nothing is touched, a cancel ends it, and statement_timeout bounds it. Locks held meanwhile are
    // no worse than those of an idle transaction, for which there is a timeout too.
    ("pg_sleep", Read, "waits"),
    ("pg_sleep_for", Read, "waits"),
    ("pg_sleep_until", Read, "waits"),
    ("pg_advisory_*", Read, "takes or frees an advisory lock of this session"),
    ("pg_try_advisory_*", Read, "takes an advisory lock of this session"),
    ("pg_blocking_pids", Read, "reads lock tables"),
    ("pg_safe_snapshot_blocking_pids", Read, "reads lock tables"),
    ("pg_lock_status", Read, "reads lock tables"),
    ("pg_prepared_xact", Read, "lists prepared transactions"),
    ("pg_notification_queue_usage", Read, "reads a figure"),
    ("pg_database_size", Read, "reads a figure"),
    ("pg_tablespace_size", Read, "reads a figure"),
    ("pg_relation_size", Read, "reads a figure"),
    ("pg_table_size", Read, "reads a figure"),
    ("pg_indexes_size", Read, "reads a figure"),
    ("pg_total_relation_size", Read, "reads a figure"),
    ("pg_partition_ancestors", Read, "reads the catalogue"),
    ("pg_partition_tree", Read, "reads the catalogue"),
    ("pg_collation_actual_version", Read, "reads a version"),
    ("pg_database_collation_actual_version", Read, "reads a version"),
    ("pg_jit_available", Read, "reads a fact about the build"),
    ("pg_is_in_recovery", Read, "reads the server's state"),
    ("pg_is_in_backup", Read, "reads the server's state"),
    ("pg_is_wal_replay_paused", Read, "reads the server's state"),
    ("pg_get_wal_replay_pause_state", Read, "reads the server's state"),
    ("pg_current_wal_*", Read, "reads a position"),
    ("pg_last_wal_*", Read, "reads a position"),
    ("pg_last_xact_replay_timestamp", Read, "reads the server's state"),
    ("pg_last_committed_xact", Read, "reads the server's state"),
    ("pg_xact_status", Read, "reads a transaction's state"),
    ("pg_xact_commit_timestamp*", Read, "reads a transaction's state"),
    ("pg_get_multixact_members", Read, "reads a transaction's state"),
    ("txid_status", Read, "reads a transaction's state"),
    ("pg_control_*", Read, "reads the server's state"),
    ("pg_get_wait_events", Read, "lists names"),
    ("pg_get_wal_resource_managers", Read, "lists names"),
    ("pg_stat_get_*", Read, "reads statistics"),
    ("pg_stat_clear_snapshot", Read, "touches this session only"),
    ("pg_stat_force_next_flush", Read, "touches this session only"),
    // Others may read by the same snapshot while this transaction lasts; pg_dump does.
    ("pg_export_snapshot", Read, "names this transaction's snapshot"),
    ("currval", Read, "reads a sequence"),
    ("lastval", Read, "reads a sequence"),
    ("pg_sequence_last_value", Read, "reads a sequence"),
    ("pg_get_sequence_data", Read, "reads a sequence"),
    // Volatile, and a write of the kind that INSERT is.
    ("nextval", Write, "advances a sequence"),
    ("setval", Write, "sets a sequence"),
    ("pg_notify", Write, "sends a notification"),
    ("lo_get", Read, "reads a large object"),
    ("loread", Read, "reads a large object"),
    ("lo_lseek*", Read, "moves in a large object"),
    ("lo_tell*", Read, "asks for the place in a large object"),
    ("lo_close", Read, "closes a large object"),
    ("lo_open", Write, "opens a large object"),
    ("lo_creat", Write, "creates a large object"),
    ("lo_create", Write, "creates a large object"),
    ("lo_from_bytea", Write, "creates a large object"),
    ("lo_put", Write, "writes a large object"),
    ("lowrite", Write, "writes a large object"),
    ("lo_truncate*", Write, "writes a large object"),
    ("lo_unlink", Write, "removes a large object"),
];

/// Functions whose every call leaves something behind that outlives the statement, or takes a place of what
/// all sessions share. `nextval` is not one of them: to take a block of numbers at once is what sequences are
/// for, and it loses nothing.
const LASTING: [&str; 14] = [
    "lo_creat",
    "lo_create",
    "lo_from_bytea",
    "lo_put",
    "lo_truncate*",
    "lo_unlink",
    "lowrite",
    "setval",
    // The queue of notifications is one for the whole server.
    "pg_notify",
    // A file for each call, until the transaction ends.
    "pg_export_snapshot",
    // A place in the server's lock table for each key.
    "pg_advisory_lock*",
    "pg_advisory_xact_lock*",
    "pg_try_advisory_lock*",
    "pg_try_advisory_xact_lock*",
];

/// Whether each call of a function leaves something behind.
pub(super) fn lasts(name: &str) -> bool {
    LASTING.iter().any(|pattern| matches(pattern, name))
}

/// The exception for a function's name.
pub(super) fn exception(name: &str) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|(pattern, ..)| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_counts_and_stars_stand_for_anything() {
        let class = |name| exception(name).map(|(_, class, _)| *class);

        assert_eq!(class("pg_read_file"), Some(ServerIo));
        assert_eq!(class("pg_ls_waldir"), Some(ServerIo));
        assert_eq!(class("query_to_xml_and_xmlschema"), Some(Code));
        assert_eq!(class("pg_create_physical_replication_slot"), Some(Admin));
        assert_eq!(class("lower"), None);
        assert_eq!(class("randomly"), None);
    }
}

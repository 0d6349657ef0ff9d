//! Calls of functions by their OID (`FunctionCall`), said in SQL.
//!
//! Drivers call the large-object functions this way: libpq's `lo_*` (psql's `\lo_import`), JDBC's
//! `LargeObject`. Such a call is decided as the `SELECT` that does the same. Any other OID may be
//! anybody's function, of which nothing can be told from here, so its text is a comment: there is
//! nothing in it to allow.

use bytes::Bytes;

use crate::statement::{Parameter, Statement, Via};
use crate::wire::frontend::FunctionCall;

/// Large-object functions as `pg_proc.dat` has had them since 9.3: OID, name, argument types. OIDs
/// below 10,000 are assigned by hand and never change.
pub const FUNCTIONS: [(u32, &str, &[u32]); 13] = [
    (715, "lo_create", &[OID]),
    (952, "lo_open", &[OID, INT4]),
    (953, "lo_close", &[INT4]),
    (954, "loread", &[INT4, INT4]),
    (955, "lowrite", &[INT4, BYTEA]),
    (956, "lo_lseek", &[INT4, INT4, INT4]),
    (957, "lo_creat", &[INT4]),
    (958, "lo_tell", &[INT4]),
    (964, "lo_unlink", &[OID]),
    (1004, "lo_truncate", &[INT4, INT4]),
    (3170, "lo_lseek64", &[INT4, INT8, INT4]),
    (3171, "lo_tell64", &[INT4]),
    (3172, "lo_truncate64", &[INT4, INT8]),
];

const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT4: u32 = 23;
const OID: u32 = 26;

/// The statement that `call`, read from `frame`, amounts to.
pub(super) fn statement(frame: &Bytes, call: &FunctionCall<'_>) -> Statement {
    let known = FUNCTIONS
        .iter()
        .find(|(oid, _, types)| *oid == call.oid && types.len() == call.arguments().len())
        .map(|(_, name, types)| (*name, *types));
    let (sql, types) = match known {
        Some((name, types)) => {
            let places: Vec<String> = (1..=types.len()).map(|place| format!("${place}")).collect();
            (format!("SELECT pg_catalog.{name}({})", places.join(", ")), types)
        }
        None => (format!("-- fast-path call of the function with OID {}", call.oid), &[][..]),
    };
    let parameters = call
        .arguments()
        .enumerate()
        .map(|(index, (format, value))| Parameter {
            format,
            type_oid: types.get(index).copied().unwrap_or(0),
            value: value.map(|value| frame.slice_ref(value)),
        })
        .collect();
    Statement { via: Via::FunctionCall, sql: sql.as_str().into(), parameters }
}

//! sqlx: the steps of tests/clients.rs, as far as it has them; and its pool and listener.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Error, PgConnection};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::Transcript;

/// sqlx tells notices to nobody but `tracing`: an event of its own target.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    let _ = write!(self.0, "{value:?}");
                }
            }
        }
        if event.metadata().target() == "sqlx::postgres::notice" {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push(message.0.trim_matches('"').to_owned());
        }
    }
}

fn told(error: &Error) -> &PgDatabaseError {
    error.as_database_error().unwrap().downcast_ref()
}

async fn one(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

pub async fn steps(url: &str, stranger: &Path, transcript: &mut Transcript) {
    let notices = Notices::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(notices.clone()));
    let options: PgConnectOptions = url.parse().unwrap();
    let refused = options.clone().ssl_root_cert(stranger).connect().await.unwrap_err();
    assert!(format!("{refused:?}").contains("InvalidCertificate"), "{refused:?}");
    let mut connection = options.connect().await.unwrap();
    transcript.line("connected: verify-full, another certificate refused");

    // The cache of statements holds 100; the rest make it close others.
    let (mut rows, mut sum) = (0, 0);
    for number in 0..120 {
        for n in 1..=6 {
            let sql = format!("select id + {number} * 16 + $1 from customers where id = $2");
            let query = sqlx::query_scalar::<_, i32>(AssertSqlSafe(sql)).bind(n).bind(n);
            rows += 1;
            sum += i64::from(query.fetch_one(&mut connection).await.unwrap());
        }
    }
    transcript.line(&format!("prepared: {rows} rows, sum {sum}"));

    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("insert into kept values ($1)").bind("a committed").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("insert into kept values ($1)").bind("rolled back").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    let committed = one(&mut connection, "select count(*) from kept where step = 'a committed'").await;
    let rolled_back = one(&mut connection, "select count(*) from kept where step = 'rolled back'").await;
    transcript.line(&format!("transactions: committed {committed}, rolled back {rolled_back}"));

    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await.unwrap();
    for n in 1..=500 {
        copy.send(format!("{n}\tname {n}\n").as_bytes()).await.unwrap();
    }
    transcript.line(&format!("copied in: {}", copy.finish().await.unwrap()));
    let out = connection.copy_out_raw("COPY approved_rows TO STDOUT").await.unwrap();
    let out: Vec<bytes::Bytes> = out.try_collect().await.unwrap();
    let out = String::from_utf8(out.concat()).unwrap();
    let sum: i64 = out.lines().map(|line| line.parse::<i64>().unwrap()).sum();
    transcript.line(&format!("copied out: {} rows, sum {sum}", out.lines().count()));

    // It cannot cancel. What there is: a time-out of the server's, and to hang up.
    sqlx::query("set statement_timeout = '300ms'").execute(&mut connection).await.unwrap();
    let error = sqlx::query("select pg_sleep(60)").execute(&mut connection).await.unwrap_err();
    sqlx::query("reset statement_timeout").execute(&mut connection).await.unwrap();
    transcript.line(&format!("cancelled: {}", told(&error).code()));
    let mut other = options.connect().await.unwrap();
    let seen = notices.0.lock().unwrap().len();
    tokio::select! {
        ended = sqlx::query("drop table ignored_rows").execute(&mut other) => panic!("{ended:?}"),
        () = async {
            while notices.0.lock().unwrap().len() == seen {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } => {}
    }
    drop(other);
    transcript.line("withdrawn: by hanging up");

    let update = sqlx::query_scalar::<_, i32>("update approved_rows set n = n + $1 returning n").bind(1000);
    let values = update.fetch_all(&mut connection).await.unwrap();
    let sum: i64 = values.iter().map(|value| i64::from(*value)).sum();
    transcript.line(&format!("approved: {} rows, sum {sum}", values.len()));
    let notice = notices.0.lock().unwrap().last().unwrap().split(": ").next().unwrap().to_owned();

    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("insert into kept values ('b before')").execute(&mut *transaction).await.unwrap();
    let mut savepoint = transaction.begin().await.unwrap();
    let error = sqlx::query("drop table denied_rows").execute(&mut *savepoint).await.unwrap_err();
    let denied = told(&error);
    assert!(denied.detail().unwrap().contains("it is still needed"), "{denied:?}");
    transcript.line(&format!("denied: {} {}", denied.code(), denied.message()));
    savepoint.rollback().await.unwrap();
    sqlx::query("insert into kept values ('c after')").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    transcript.line(&format!("notice: {notice}"));

    let ids = sqlx::query_scalar::<_, i32>("select id from customers").fetch(&mut connection);
    let ids: Vec<i32> = ids.try_collect().await.unwrap();
    assert_eq!(ids.iter().sum::<i32>(), 5050);
    let pool = PgPoolOptions::new().max_connections(3).connect_with(options).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("jobs").await.unwrap();
    sqlx::query("notify jobs, 'hello'").execute(&pool).await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "hello");
    // Types that are not built in are looked up in the catalogue.
    let record: (Vec<String>,) =
        sqlx::query_as("select array[relname::text] from pg_class where relname = 'kept'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(record.0, ["kept"]);
    transcript.line(&format!("usable: {}", one(&mut connection, "select count(*) from customers").await));
    connection.close().await.unwrap();
}

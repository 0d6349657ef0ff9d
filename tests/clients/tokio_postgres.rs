//! tokio-postgres with rustls: the steps of tests/clients.rs; and portals, pipelining.

use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Transcript;

/// What the connection's own task was told.
type Notices = Arc<Mutex<Vec<String>>>;

fn trusting(certificate: &Path) -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())
}

async fn connect(config: &Config, tls: MakeRustlsConnect) -> Result<(Client, Notices), Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let notices = Notices::default();
    let told = Arc::clone(&notices);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                told.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    Ok((client, notices))
}

async fn one(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn code(error: &Error) -> &str {
    error.code().map_or("no code", |code| code.code())
}

pub async fn steps(url: &str, stranger: &Path, transcript: &mut Transcript) {
    let (address, certificate) = url.split_once("?sslmode=verify-full&sslrootcert=").unwrap();
    // The driver has no verify-full of its own: rustls verifies whenever there is TLS.
    let config: Config = format!("{address}?sslmode=require&channel_binding=require").parse().unwrap();
    let tls = trusting(Path::new(certificate));
    let refused = connect(&config, trusting(stranger)).await.err().unwrap();
    assert!(format!("{refused:?}").contains("InvalidCertificate"), "{refused:?}");
    let (mut client, notices) = connect(&config, tls.clone()).await.unwrap();
    transcript.line("connected: verify-full, another certificate refused");

    let (mut rows, mut sum) = (0, 0);
    for number in 0..120 {
        let sql = format!("select id + {number} * 16 + $1 from customers where id = $2");
        let statement = client.prepare_typed(&sql, &[Type::INT4, Type::INT4]).await.unwrap();
        // All of them at once: the driver pipelines.
        let values: Vec<i32> = (1..=6).collect();
        let client = &client;
        let all = values.iter().map(|n| {
            let statement = &statement;
            async move { client.query_one(statement, &[n, n]).await.unwrap().get::<_, i32>(0) }
        });
        for value in future::join_all(all).await {
            rows += 1;
            sum += i64::from(value);
        }
    }
    transcript.line(&format!("prepared: {rows} rows, sum {sum}"));

    let transaction = client.transaction().await.unwrap();
    transaction.execute("insert into kept values ($1)", &[&"a committed"]).await.unwrap();
    transaction.commit().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("insert into kept values ($1)", &[&"rolled back"]).await.unwrap();
    // Dropped: the driver sends ROLLBACK by itself.
    drop(transaction);
    let committed = one(&client, "select count(*) from kept where step = 'a committed'").await;
    let rolled_back = one(&client, "select count(*) from kept where step = 'rolled back'").await;
    transcript.line(&format!("transactions: committed {committed}, rolled back {rolled_back}"));

    let sink = client.copy_in("COPY copied FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for n in 1..=500 {
        sink.send(bytes::Bytes::from(format!("{n}\tname {n}\n"))).await.unwrap();
    }
    transcript.line(&format!("copied in: {}", sink.finish().await.unwrap()));
    let out = client.copy_out("COPY approved_rows TO STDOUT").await.unwrap();
    let out: Vec<bytes::Bytes> = out.try_collect().await.unwrap();
    let out = String::from_utf8(out.concat()).unwrap();
    let sum: i64 = out.lines().map(|line| line.parse::<i64>().unwrap()).sum();
    transcript.line(&format!("copied out: {} rows, sum {sum}", out.lines().count()));

    // The driver does not wait for the end of its cancel connection, so a cancel is sent once, and only
    // when there is something to cancel: not while the statement is parsed, when it is active as well.
    let (watcher, _) = connect(&config, tls.clone()).await.unwrap();
    let cancel = client.cancel_token();
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and wait_event = 'PgSleep'";
    let (ended, ()) = future::join(client.execute("select pg_sleep(60)", &[]), async {
        while one(&watcher, sleeps).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cancel.cancel_query(tls.clone()).await.unwrap();
    })
    .await;
    transcript.line(&format!("cancelled: {}", code(&ended.unwrap_err())));
    let seen = notices.lock().unwrap().len();
    let (ended, ()) = future::join(client.execute("drop table ignored_rows", &[]), async {
        while notices.lock().unwrap().len() == seen {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cancel.cancel_query(tls.clone()).await.unwrap();
    })
    .await;
    transcript.line(&format!("withdrawn: {}", code(&ended.unwrap_err())));

    let rows = client.query("update approved_rows set n = n + $1 returning n", &[&1000_i32]).await.unwrap();
    let sum: i64 = rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
    transcript.line(&format!("approved: {} rows, sum {sum}", rows.len()));
    let notice = notices.lock().unwrap().last().unwrap().split(": ").next().unwrap().to_owned();

    let mut transaction = client.transaction().await.unwrap();
    transaction.execute("insert into kept values ('b before')", &[]).await.unwrap();
    let savepoint = transaction.transaction().await.unwrap();
    let error = savepoint.execute("drop table denied_rows", &[]).await.unwrap_err();
    let told = error.as_db_error().unwrap();
    assert!(told.detail().unwrap().contains("it is still needed"), "{told:?}");
    transcript.line(&format!("denied: {} {}", told.code().code(), told.message()));
    savepoint.rollback().await.unwrap();
    transaction.execute("insert into kept values ('c after')", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    transcript.line(&format!("notice: {notice}"));

    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select id from customers order by id", &[]).await.unwrap();
    let mut sum = 0;
    loop {
        let some = transaction.query_portal(&portal, 7).await.unwrap();
        if some.is_empty() {
            break;
        }
        sum += some.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    }
    assert_eq!(sum, 5050);
    transaction.commit().await.unwrap();
    let no_values: [i32; 0] = [];
    let rows = client.query_raw("select id from customers", no_values).await.unwrap();
    assert_eq!(std::pin::pin!(rows).count().await, 100);
    transcript.line(&format!("usable: {}", one(&client, "select count(*) from customers").await));
}

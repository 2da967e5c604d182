use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use sqlx::Row as _;

use super::database::{POSTGRES_TABLES, SQLITE_TABLES};
use super::scratch::{Folder, Scratch};
use super::*;
use crate::config::DatabaseSection;
use crate::told::eventually;

#[test]
fn a_url_names_a_file_or_a_server_or_is_refused_without_being_repeated() {
    let file = Target::parse("sqlite:///a folder/x.db").unwrap();
    assert_eq!(format!("{file:?}"), r#"Sqlite("/a folder/x.db")"#);
    for url in [
        "postgres://u:hidden@h:1/d?sslmode=verify-full",
        "postgresql://h/d",
    ] {
        let shown = format!("{:?}", Target::parse(url).unwrap());
        assert_eq!(shown, "Postgres");
    }
    for (url, why) in [
        ("mysql://u:hidden@h/d", "must begin with"),
        ("hidden", "must begin with"),
        ("sqlite::memory:", "must begin with"),
        ("sqlite://relative.db", "must begin with"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///folder/", "must name a file"),
        ("sqlite:///x.db?mode=ro", "must name a file"),
        ("postgres://u:hidden@h:port/d", "is not a valid address"),
        ("postgres://u:hidden@h/d?sslmode=hiden", "is not a valid address"),
    ] {
        let bad = Target::parse(url).unwrap_err().to_string();
        assert!(bad.contains(why) && !bad.contains("hidden"), "{url}: {bad}");
    }
}

#[test]
fn placeholders_are_counted_through() {
    assert_eq!(placeholders(0, 1, 1), "($1)");
    assert_eq!(placeholders(2, 2, 3), "($3, $4, $5), ($6, $7, $8)");
}

#[test]
fn both_databases_have_the_same_migrations_and_every_file_is_compiled_in() {
    let names = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(folder);
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
    for tables in [&SQLITE_TABLES, &POSTGRES_TABLES] {
        assert_eq!(tables.iter().count(), names("sqlite").len());
    }
}

/// Everything that a column of ours may be, there and back.
async fn values_come_back_as_they_went(database: &Database) {
    let work = async {
        let mut transaction = database.begin().await?;
        sqlx::query("CREATE TABLE t (a BIGINT NOT NULL, b BIGINT, c TEXT, d TEXT NOT NULL)")
            .execute(&mut *transaction)
            .await?;
        let insert = format!("INSERT INTO t (a, b, c, d) VALUES {}", placeholders(0, 2, 4));
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .bind(u64::MAX.cast_signed())
            .bind(None::<i64>)
            .bind(None::<&str>)
            .bind("é\n'\"\\")
            .bind(i64::MIN)
            .bind(Some(i64::MAX))
            .bind(Some("text"))
            .bind(String::new())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let rows = sqlx::query("SELECT a, b, c, d FROM t ORDER BY a DESC")
            .fetch_all(database.reads())
            .await?;
        let mut read = Vec::new();
        for row in &rows {
            read.push((
                row.try_get::<i64, _>("a")?,
                row.try_get::<Option<i64>, _>("b")?,
                row.try_get::<Option<String>, _>("c")?,
                row.try_get::<String, _>("d")?,
            ));
        }
        assert_eq!(read[0], (-1, None, None, "é\n'\"\\".to_owned()));
        assert_eq!(
            read[1],
            (i64::MIN, Some(i64::MAX), Some("text".to_owned()), String::new())
        );
        Ok(())
    };
    database.within(work).await.unwrap();
}

/// Without a commit nothing happens, and whoever reads meanwhile is not kept waiting.
async fn a_transaction_that_is_dropped_has_not_happened(database: &Database) {
    let count = async || {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM webhook_cursors")
            .fetch_one(database.reads())
            .await
            .unwrap();
        row.try_get::<i64, _>("n").unwrap()
    };
    let mut transaction = database.begin().await.unwrap();
    sqlx::query("INSERT INTO webhook_cursors (name, position) VALUES ('p', '1')")
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(count().await, 0, "not yet");
    drop(transaction);
    database.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(count().await, 0);
}

async fn many_may_open_it_at_once(scratch: &Scratch) {
    for database in join_all((0..6).map(|_| scratch.open())).await {
        a_transaction_that_is_dropped_has_not_happened(&database).await;
        database.close().await;
    }
}

#[tokio::test]
async fn sqlite_does_what_is_asked_of_a_database() {
    let scratch = Scratch::sqlite();
    many_may_open_it_at_once(&scratch).await;
    values_come_back_as_they_went(&scratch.open().await).await;
}

#[tokio::test]
async fn postgres_does_what_is_asked_of_a_database() {
    let scratch = Scratch::postgres().await;
    many_may_open_it_at_once(&scratch).await;
    values_come_back_as_they_went(&scratch.open().await).await;
}

/// The files of a process that was killed are what a copy of them is while it lives.
#[tokio::test]
async fn what_was_committed_is_in_the_files_of_sqlite_at_once() {
    let scratch = Scratch::sqlite();
    let database = scratch.open().await;
    let mut transaction = database.begin().await.unwrap();
    sqlx::query("INSERT INTO webhook_cursors (name, position) VALUES ('p', '1')")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let copy = Folder::new();
    for entry in std::fs::read_dir(scratch.folder()).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, copy.path().join(from.file_name().unwrap())).unwrap();
    }
    let after = Database::open(scratch.section(), copy.path()).await.unwrap();
    let row = sqlx::query("SELECT position FROM webhook_cursors")
        .fetch_one(after.reads())
        .await
        .unwrap();
    assert_eq!(row.try_get::<String, _>("position").unwrap(), "1");
}

#[tokio::test]
async fn what_is_written_to_sqlite_comes_into_its_file_beside_the_writers() {
    let scratch = Scratch::sqlite();
    let database = scratch.open().await;
    let file = scratch.folder().join("dunlin.db");
    let bytes = || std::fs::metadata(&file).unwrap().len();
    for n in 0..2100 {
        sqlx::query("INSERT INTO webhook_cursors (name, position) VALUES ($1, $2)")
            .bind(n.to_string())
            .bind("x".repeat(1000))
            .execute(database.writes())
            .await
            .unwrap();
    }
    assert!(bytes() < 1_400_000, "the writers have left most of it in the log");
    tokio::select! {
        () = database.tend() => unreachable!("it tends for ever"),
        () = eventually("it is in the file", async || bytes() > 1_400_000) => {}
    }
}

#[tokio::test]
async fn the_file_of_sqlite_and_its_folder_are_made_for_nobody_else_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    // A name that would mean something in a URL.
    let data_dir = folder.path().join("new %20?#/below");
    let scratch = Scratch::sqlite();
    let database = Database::open(scratch.section(), &data_dir).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for file in ["dunlin.db", "dunlin.db-wal"] {
        assert_eq!(mode(&data_dir.join(file)), 0o600, "{file}");
    }
    database.close().await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_an_error_that_tells_no_password() {
    let section = DatabaseSection {
        url: Some("postgres://u:hidden@127.0.0.1:1/d".into()),
        ..Scratch::sqlite().section().clone()
    };
    let error = Database::open(&section, Path::new("unused")).await.unwrap_err();
    assert!(matches!(error, OpenError::Connect(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("hidden"));
}
